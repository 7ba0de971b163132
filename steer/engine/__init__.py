"""Engines run a model: they capture activations, inject vectors and generate."""
