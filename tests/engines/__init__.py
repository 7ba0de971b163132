"""Servers of other projects, steered for real: `make engines`, in an environment of its own."""
