"""Weight sites: displaced by hooks on the module's output, or merged."""
