"""What `steer extract` prints of a selection: its card and what to try next."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from steer.cli._common import say

if TYPE_CHECKING:
    from steer.measure import Share
    from steer.pairs import Prompt
    from steer.selection import Selection

_NEXT = (
    "read the warnings above, if any: they say what is wrong with the pairs",
    "use more pairs, or pairs that agree more: 60 or more, with several ways of answering",
    "allow a stronger push: --kl 1 (repetitions and broken words mean that it is too strong)",
    "read elsewhere: --at template,response_mean,response_first,response_last",
    "see whether a prompt does it: if `prompted` is no better, the model may not be able",
)
_WORDS = (
    "objective: the share of the choosing pairs whose preferred answer became the likelier one, "
    "which a setting is chosen by",
    "margin: log-probability of the preferred answer less that of the other, in nats per token",
    "detectable: the change of margin that so few pairs would show in four of five cases",
    "× N tried: the best of N looks good by chance, so this p-value is multiplied by N",
)
_PAGE = "docs/howto/does-nothing.md leads from what you see to a check and a cure."


def show(found: "Selection") -> None:
    """Print the card of a selection, what its words mean, and advice where nothing works."""
    say(found)
    for line in _WORDS:
        say(line)
    if lacking := _lacking(found):
        say(f"This vector may do nothing: {' and '.join(lacking)}. What to try:")
        for step in _NEXT:
            say(f"- {step}")
        say(_PAGE)


def as_json(found: "Selection") -> dict[str, object]:
    """Return a selection of one domain as plain values."""
    (held_out,) = found.held_out.values()
    shares = {"steered": held_out.steered, **held_out.baselines}
    answers = () if found.visible is None else found.visible.answers
    on_topic = None if found.visible is None else found.visible.on_topic
    return {
        "position": found.position,
        "layer": found.layer,
        "coefficient": found.coefficient,
        "displacement": found.displacement,
        "kl": found.kl,
        "likelihood_effect": found.likelihood_effect,
        "accuracy": {name: _share(share) for name, share in shares.items()},
        "answers": [
            {"prompt": _plain(a.prompt), "unsteered": str(a.before), "steered": str(a.after)}
            for a in answers
        ],
        "changed": None if found.visible is None else found.visible.changed.value,
        "on_topic": None if on_topic is None else [share.value for share in on_topic],
        "palrs": None if found.palrs is None else asdict(found.palrs),
        "settings": [dict(row) for row in found.rows],
    }


def _lacking(found: "Selection") -> list[str]:
    """Return the effects that this setting was not shown to have."""
    lacking = [] if found.likelihood_effect else ["no effect on likelihoods is shown"]
    if found.visible is not None and not found.visible.changed.hits:
        lacking.append("no answer changed")
    return lacking


def _share(share: "Share") -> dict[str, float]:
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high, "n": share.n}


def _plain(prompt: "Prompt") -> object:
    if isinstance(prompt, str):
        return prompt
    return [{"role": turn.role, "content": turn.content} for turn in prompt]
