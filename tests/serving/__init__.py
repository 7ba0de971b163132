"""Steering in servers, as far as no server is needed; `tests/engines` runs real ones."""
