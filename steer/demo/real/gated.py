"""What a domain gate does to two knobs: each acts on its own kind of question alone."""

from steer.algebra import Composition
from steer.demo.real.answers import Setting, answers, share
from steer.demo.real.behaviours import judge
from steer.demo.real.kinds import KIND_OF, ROUTED
from steer.model import Model

Shares = dict[tuple[str, str, str], float]  # by setting, kind of question and behaviour


def gated_shares(
    model: Model, knobs: Composition, one: Setting, n: int, tokens: int, progress: bool
) -> tuple[Shares, dict[str, tuple[str, str]]]:
    """Answer questions of two kinds at each knob alone and at both, without and with the gate.

    Args:
        model: The model.
        knobs: The vectors behind the gate.
        one: The coefficient of each behaviour at knob 1.
        n: Questions of each kind.
        tokens: Most tokens of an answer.
        progress: Whether to show progress bars.

    Returns:
        Shares of answers judged to show each behaviour, by setting, kind and behaviour; and for
        each kind a question with its answer, both knobs at 1 behind the gate.
    """
    of_kind = {kind: ROUTED[kind][:n] for kind in KIND_OF.values()}
    asked = [question for part in of_kind.values() for question in part]
    alone: dict[str, Setting] = {f"{b} +1": {b: c} for b, c in one.items()}
    settings = alone | {"both +1": one}
    texts: dict[str, list[str]] = {}
    for how, composed in (("", knobs.gated(None)), (", gate", knobs)):
        tried = settings if how else {"unsteered": {}, **settings}
        found = answers(model, composed, [*tried.values()], asked, tokens=tokens, progress=progress)
        texts |= {f"{name}{how}": part for name, part in zip(tried, found, strict=True)}
    shares: Shares = {}
    routed = {}
    start = 0
    for kind, part in of_kind.items():
        own = slice(start, start + len(part))
        start = own.stop
        shares |= {
            (name, kind, b): share(judge(b), b, found[own])
            for name, found in texts.items()
            for b in one
        }
        routed[kind] = part[0], texts["both +1, gate"][own][0]
    return shares, routed
