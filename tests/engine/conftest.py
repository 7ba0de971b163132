"""Engine tests draw the same examples in every run, and are not timed."""

from hypothesis import settings

settings.register_profile("engine", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("engine")
