"""What vectors do to whole domains: steerability of the own one, and effects on all others."""

from steer.effects.matrix import OffTarget
from steer.effects.off_target import off_target
from steer.effects.steerability import steerability

__all__ = ["OffTarget", "off_target", "steerability"]
