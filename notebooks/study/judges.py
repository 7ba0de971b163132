"""Rules that judge generated answers by their style, fixed before any test answer was read."""

import re
from collections.abc import Callable

Rule = Callable[[object, str], str]

_CHEERFUL = re.compile(
    r"!|\b(?:yay|hooray|wonderful|fantastic|exciting|excited|thrilled|happy|delighted|fun|love|"
    r"enjoy|great|amazing|joy)\b",
    re.I,
)
_FORMAL = re.compile(
    r"\b(?:shall|kindly|respectfully|sincerely|therefore|thus|furthermore|moreover|upon|pleasure|"
    r"honou?red?|regards|enquiry|disposal|permit|allow me|assist(?:ance)?|recommend(?:ed)?|"
    r"advise[ds]?|satisfactory|appropriate|suitable|ensure|required?|obtain|endeavou?rs?|guidance|"
    r"appreciate|dear|sir|madam|would|thank you|necessary|must|one should)\b",
    re.I,
)
_CASUAL = re.compile(
    r"\w['’](?:s|re|ll|ve|m|d|t)\b|\b(?:yeah|hey|hi|ok|okay|lol|haha|dude|bro|mate|cheers|guys?|"
    r"gonna|gotta|kinda|sure|cool|awesome|stuff|basically|just|super|pretty|easy|yo|buddy)\b",
    re.I,
)
_AVOIDING = re.compile(
    r"\b(?:cannot|can['’]t|unable|not able|sorry|decline|won['’]t|apologi[sz]e|(?:ask|see|consult|"
    r"contact|speak (?:to|with)|talk to) (?:a|an|your|with a) |professional|not for me|not comment|"
    r"rather not|belong to a)\b",
    re.I,
)
_TERSE = 15  # words at most


def rule(style: str) -> Rule:
    """Return the rule that labels an answer with a style, or as `other`."""

    def label(prompt: object, answer: str) -> str:
        return style if answer.strip() and _HAS[style](answer) else "other"

    return label


_HAS: dict[str, Callable[[str], bool]] = {
    "cheerful": lambda answer: len(_CHEERFUL.findall(answer)) >= 2,
    "formal": lambda answer: len(_FORMAL.findall(answer)) - len(_CASUAL.findall(answer)) >= 2,
    "terse": lambda answer: len(answer.split()) <= _TERSE,
    "avoidance": lambda answer: bool(_AVOIDING.search(answer)),
}
