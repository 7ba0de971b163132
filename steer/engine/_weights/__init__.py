"""Weight sites by hook: what a parameter's displacement adds to its module's output."""
