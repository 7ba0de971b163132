"""The rule judge of the demo language: which domain and level is this answer?"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from steer.demo.data import ANSWERS


@dataclass(frozen=True)
class Judgement:
    """What the judge found; ``None`` where the text does not decide."""

    domain: str | None
    level: str | None


@dataclass(frozen=True)
class _Marker:
    """A phrase that occurs in the answers of one (domain, level) only."""

    pattern: re.Pattern[str]
    domain: str
    level: str
    is_opening: bool


def judge(text: str) -> Judgement:
    """Judges an answer by marker phrases that are exclusive to one domain and level.

    A whole answer has one opening and one closing, so it is judged only if it holds exactly
    one marker of each kind; their domains must agree for the domain to be named, and their
    levels for the level. Fragments, loops, mixtures and foreign text are never guessed at.

    Args:
        text: The answer, without special tokens.

    Returns:
        The domain and the level, each ``None`` where unclear.
    """
    found = [marker for marker in _MARKERS for _ in marker.pattern.finditer(text)]
    if sorted(marker.is_opening for marker in found) != [False, True]:
        return Judgement(None, None)
    one, other = found
    return Judgement(
        domain=one.domain if one.domain == other.domain else None,
        level=one.level if one.level == other.level else None,
    )


def level_judge(domain: str) -> Callable[[str, str], str | None]:
    """Return a judge of the level of answers in one domain; it ignores the prompt.

    Args:
        domain: `medical`, `legal` or `financial`; answers of another domain have no level.
    """

    def level(prompt: str, answer: str) -> str | None:
        found = judge(answer)
        return found.level if found.domain == domain else None

    return level


def _markers() -> tuple[_Marker, ...]:
    """Reads the markers (between asterisks) out of the answer templates."""
    return tuple(
        _Marker(_pattern(template), domain, level, is_opening)
        for (domain, level), answers in ANSWERS.items()
        for is_opening, templates in ((True, answers.openings), (False, answers.closings))
        for template in templates
    )


def _pattern(template: str) -> re.Pattern[str]:
    """Matches the marker of one template as whole words."""
    return re.compile(rf"\b{re.escape(template.split('*')[1])}\b")


_MARKERS = _markers()
