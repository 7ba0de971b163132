"""Rules that judge answers of a real model: their style, and whether they are on topic.

The words were fixed before any answer to the questions of `ASKED` was read.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

_LEAD = 2  # words by which one style must lead the other
_STEM = 4  # letters that words of one stem share
_TOPICLESS = frozenset(
    re.findall(
        r"\w+",
        "what when where which that this with from have need should could would best good make "
        "take learn start your some",
    )
)


def _words(*parts: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(parts) + r")\b", re.I)


_OWN: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "cheerful": re.compile(
            r"!|\b(?:yay|wonderful|fantastic|exciting|excited|happy|delighted|fun|love|enjoy|great)\b",
            re.I,
        ),
        "formal": _words(
            "shall|kindly|respectfully|sincerely|hereby|therefore|thus|furthermore|moreover|upon",
            "pleasure|honou?r|delighted|regards|(?:in|en)quiry|disposal|at your service|permit",
            "assist(?:ance)?|recommend(?:ed)?|advise[ds]?|satisfactory|appropriate|suitable",
            "ensure|requires?|required|select|obtain|endeavou?rs?|guidance|individual|gratitude",
            "appreciate|dear|sir|madam|would|thank you|necessary|must",
        ),
        "refusing": _words(
            "sorry|afraid|unable|not able|cannot|apologi[sz]e|decline|refuse|unfortunately",
            "(?:ca|wo|do)n['’]t",
        ),
        "asking": re.compile(r"\?"),
        "personal": re.compile(
            r"\b(?:I(?!['’]m (?:here|sorry|an? ))|me|my|myself|mine|we|our)\b(?! AI\b)"
        ),
    }
)
_OTHER: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "formal": re.compile(
            r"\w['’](?:s|re|ll|ve|m|d|t)\b|\b(?:yeah|yep|hey|hi|ok|okay|lol|haha|dude|bro|mate|"
            r"cheers|guys?|gonna|wanna|gotta|kinda|sure|cool|awesome|stuff|basically|just|super|"
            r"pretty|easy|peasy|no big deal|got this|breeze|fun|crazy)\b",
            re.I,
        ),
        "refusing": _words(
            "sure|of course|certainly|absolutely|glad to|happy to|gladly|here(?:['’]s| is| are)",
            "follow|steps?|first|you can|you should|you(?:['’]ll| will) need|try",
        ),
    }
)
OPPOSITES: Mapping[str, str | None] = MappingProxyType(
    {"cheerful": None, "formal": "casual", "refusing": "helping", "personal": None, "asking": None}
)


def judge(behaviour: str) -> Callable[[object, str], str]:
    """Return a rule that labels an answer with the behaviour, its opposite, or `neither`.

    The rule counts words of both styles; one must lead by two.

    Args:
        behaviour: `cheerful`, `formal` (its opposite is `casual`), `personal`, `asking` or
            `refusing` (`helping`).
    """
    own, other, opposite = _OWN[behaviour], _OTHER.get(behaviour), OPPOSITES[behaviour]

    def label(prompt: object, answer: str) -> str:
        lead = len(own.findall(answer)) - (len(other.findall(answer)) if other else 0)
        return (
            behaviour if lead >= _LEAD else opposite if opposite and lead <= -_LEAD else "neither"
        )

    return label


def on_topic(question: str, answer: str) -> bool:
    """Return whether an answer has a word that begins like a content word of its question.

    Args:
        question: The question.
        answer: The answer.
    """
    asked = [word for word in _words_of(question) if word not in _TOPICLESS]
    stems = tuple(word[:_STEM].removesuffix("e") for word in asked)
    return any(word.startswith(stems) for word in _words_of(answer))


def _words_of(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if len(word) >= _STEM]
