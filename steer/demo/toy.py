"""What `steer demo --toy` studies: three domains of the toy's language."""

from steer.demo.data import DOMAINS, LEVELS
from steer.demo.judge import level_judge
from steer.demo.language import NEUTRAL_PROMPTS, pairs, questions, system_tags
from steer.demo.study import Behaviour, Subject
from steer.extract import Activations, palrs
from steer.measure import neutral_text
from steer.model import Model
from steer.pairs import Pairs
from steer.selection import Limits, Selection, select

_KL = 3.0
_LAYERS = (3, 4)  # of 6: where steering is tried
_COEFFICIENTS = (0.5, 0.75)
_LADDER = (("expert", "avoidance"), ("expert", "generic"), ("generic", "avoidance"))
_GATED = 12  # questions of each domain answered without and with the gate


def toy_subject(model: Model, n_pairs: int = 100, n_questions: int = 20, seed: int = 0) -> Subject:
    """Return the toy's three domains as knobs from avoidance to expert.

    Args:
        model: The toy.
        n_pairs: Pairs of each domain to make a vector from.
        n_questions: Validation pairs, test pairs, and test questions of each domain.
        seed: Seed of pairs and questions.
    """
    text = neutral_text(model, NEUTRAL_PROMPTS[::2], max_new_tokens=16)

    def choose(recording: Activations, domain: str) -> Selection:
        candidates = [
            palrs(recording, domain=domain, positions=[position], layers=[layer])
            for position in recording.positions
            for layer in _LAYERS
        ]
        return select(
            model,
            candidates,
            ladder(domain, n_questions, seed, "validation"),
            test=ladder(domain, n_questions, seed, "test"),
            coefficients=_COEFFICIENTS,
            limits=Limits(kl=_KL),
            answers=False,
            both_ways=True,
            neutral=text,
            instruction=system_tags({domain: "expert"}),
            seed=seed,
            progress=False,
        )

    behaviours = {d: _behaviour(d, n_pairs, n_questions, seed) for d in DOMAINS}
    return Subject(
        behaviours, choose, ("template",), _LAYERS, tokens=48, gated=_GATED, license="Apache-2.0"
    )


def ladder(domain: str, n: int, seed: int, split: str) -> Pairs:
    """Return n pairs, a third of each step from avoidance over generic to expert, rounded up.

    With expert against avoidance alone nearly every setting is right on every pair, and the choice
    would be left to chance.
    """
    each = -(-n // len(_LADDER))
    return Pairs.of(
        pair
        for k, (chosen, rejected) in enumerate(_LADDER)
        for pair in pairs(
            domain, each, seed=seed + k, split=split, chosen_level=chosen, rejected_level=rejected
        )
    )


def _behaviour(domain: str, n_pairs: int, n_questions: int, seed: int) -> Behaviour:
    made_from = pairs(domain, n_pairs, seed=seed)
    return Behaviour(
        pairs=made_from,
        labels=LEVELS[::-1],
        judge=level_judge(domain),
        instruction=system_tags({domain: "expert"}),
        asked=questions(domain, n_questions, seed=seed + 1),
        kind=domain,
        fitted=[str(pair.prompt) for pair in made_from],
        routed=questions(domain, n_questions, seed=seed, split="validation"),
    )
