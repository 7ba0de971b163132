"""What vectors do to whole domains: steerability of the own one, and effects on all others."""

from steer.effects.off_target import OffTarget, off_target
from steer.effects.steerability import steerability

__all__ = ["OffTarget", "off_target", "steerability"]
