"""Engines run a model: they capture activations, inject vectors and generate."""

from steer.engine._base import Attachment, Batch, Engine, unsteered
from steer.engine._hooks import HooksEngine
from steer.engine._injector import injector_of

__all__ = [
    "Attachment",
    "Batch",
    "Engine",
    "HooksEngine",
    "injector_of",
    "unsteered",
]
