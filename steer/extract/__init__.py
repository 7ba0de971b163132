"""Extraction methods: from activations to vectors, one decorated function each."""

from steer.extract.mean_difference import mean_difference
from steer.extract.palrs import palrs
from steer.extract.registry import Method, get_method, method, methods

__all__ = ["Method", "get_method", "mean_difference", "method", "methods", "palrs"]
