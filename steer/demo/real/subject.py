"""What `steer demo` studies on an instruct model: cheerful and formal answers."""

from steer.demo.real.behaviours import ASKED, KINDS, held_out, pairs
from steer.demo.real.rules import OPPOSITES, judge
from steer.demo.study import Behaviour, Subject
from steer.extract import Activations, mean_difference
from steer.extract._positions import DEFAULT_AT
from steer.model import Model
from steer.selection import Limits, Race, Selection, select

KL_BUDGET = 0.5  # nats per response token
_LAYERS = 5
_RACE = Race(keep=10, at_random=3)
_INSTRUCTION = {
    "cheerful": "Answer in a very cheerful and enthusiastic way.",
    "formal": "Answer in a very formal and polite way.",
}


def instruct_subject(
    model: Model,
    n_pairs: int = 60,
    n_questions: int = 10,
    n_gated: int = 6,
    seed: int = 0,
    progress: bool = False,
) -> Subject:
    """Return cheerful and formal answers as knobs.

    Args:
        model: An instruct model.
        n_pairs: The most pairs of each behaviour to make a vector from, and to choose with.
        n_questions: Questions answered at every setting.
        n_gated: Questions of each kind answered without and with the gate.
        seed: Seed of the splits and of the race.
        progress: Whether to show the progress of choosing.
    """

    def choose(recording: Activations, behaviour: str) -> Selection:
        candidates = {
            position: mean_difference(recording, domain=behaviour, position=position)
            for position in recording.positions
        }
        return select(
            model,
            candidates,
            held_out(behaviour)[:n_pairs],
            limits=Limits(kl=KL_BUDGET),
            strategy=_RACE,
            instruction=_INSTRUCTION[behaviour],
            judge=judge(behaviour),
            wanted=behaviour,
            answers=False,
            seed=seed,
            progress=progress,
        )

    behaviours = {
        name: Behaviour(
            pairs=pairs(name)[:n_pairs],
            labels=(name, *filter(None, [OPPOSITES[name]])),
            judge=judge(name),
            instruction=_INSTRUCTION[name],
            asked=ASKED[:n_questions],
            **kind,
        )
        for name, kind in KINDS.items()
    }
    layers = middle_layers(model.n_layers, _LAYERS)
    return Subject(behaviours, choose, DEFAULT_AT, layers, tokens=32, gated=n_gated)


def middle_layers(depth: int, n: int) -> list[int]:
    """Return at most n layers, evenly spread over the middle half of the depth."""
    return sorted({int(depth / 4 + depth / 2 * (k + 0.5) / n) for k in range(n)})
