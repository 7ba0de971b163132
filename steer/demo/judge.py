"""The rule judge of the toy's language: the domain and the level of an answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from steer.demo.data import ANSWERS


@dataclass(frozen=True)
class Judgement:
    """The domain and the level of an answer; `None` where the text does not decide.

    Args:
        domain: `medical`, `legal` or `financial`.
        level: `avoidance`, `generic` or `expert`.
    """

    domain: str | None
    level: str | None


@dataclass(frozen=True)
class _Marker:
    """A phrase that occurs in the answers of one domain and level only."""

    pattern: re.Pattern[str]
    domain: str
    level: str
    is_opening: bool


def judge(text: str) -> Judgement:
    """Judge an answer by marker phrases, each of which belongs to one domain and level.

    A complete answer has one opening and one closing, so the text must hold exactly one marker of
    each. The domain is named where both agree on it, and so is the level. Fragments, loops,
    mixtures and other text are unclear.

    Args:
        text: The answer, without special tokens.
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


_MARKERS = tuple(
    _Marker(re.compile(rf"\b{re.escape(template.split('*')[1])}\b"), domain, level, is_opening)
    for (domain, level), answers in ANSWERS.items()
    for is_opening, templates in ((True, answers.openings), (False, answers.closings))
    for template in templates
)
