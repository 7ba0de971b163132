"""What the alternatives cost: tuning all domains jointly, and asking by a system message."""

import time
from dataclasses import dataclass
from statistics import median

from notebooks.experiments.score import NEW_TOKENS, Asked
from steer.algebra import Composition
from steer.alignment import preference_tune
from steer.demo.data import DOMAINS
from steer.demo.judge import Judgement, judge
from steer.demo.language import system_tags
from steer.model import Model
from steer.network import encode_prompt
from steer.pairs import Message, Pairs
from vectors.make_toy import STEPS, preferring


@dataclass(frozen=True, slots=True)
class Prompting:
    """Asking by a system message against steering.

    Args:
        tokens: Mean tokens of a prompt with the system message.
        tokens_plain: Mean tokens of a prompt without it.
        seconds: CPU time of generating with the message.
        seconds_steered: CPU time of generating the same answers steered.
    """

    tokens: float
    tokens_plain: float
    seconds: float
    seconds_steered: float


@dataclass(frozen=True, eq=False, slots=True)
class Joint:
    """Preference-tuning all domains jointly, for one combination.

    Args:
        wanted: The level wanted in each domain.
        seconds: CPU time of the tuning.
        share: Share of judged answers at the wanted level, in the domain where it is least.
    """

    wanted: tuple[str, ...]
    seconds: float
    share: float


def joint_tuning(model: Model, wanted: tuple[str, ...], asked: Asked, *, seed: int = 0) -> Joint:
    """Preference-tune all domains jointly for one combination.

    The same recipe, pairs per domain and steps per domain as each alignment vector had.

    Args:
        model: The unaligned model.
        wanted: The level wanted in each domain.
        asked: Test questions.
        seed: Seed of pairs and training.
    """
    preferred = Pairs.of(
        pair
        for domain, level in zip(DOMAINS, wanted, strict=True)
        for pair in preferring(domain, level, seed=seed)
    )
    start = time.process_time()
    tuned = preference_tune(model, preferred, steps=STEPS * len(DOMAINS), seed=seed, progress=False)
    seconds = time.process_time() - start
    shares = []
    for domain, level in zip(DOMAINS, wanted, strict=True):
        texts = tuned.generate(list(asked.questions[domain]), max_new_tokens=NEW_TOKENS)
        shares.append(sum(judge(t) == Judgement(domain, level) for t in texts) / len(texts))
    return Joint(wanted, seconds, min(shares))


def prompting(
    model: Model, knobs: Composition, wanted: tuple[str, ...], asked: Asked, *, rounds: int = 3
) -> Prompting:
    """Measure prompt tokens and time of asking by system message, and of steering.

    Args:
        model: The demo model.
        knobs: A composition at the setting that reaches the combination.
        wanted: The level wanted in each domain.
        asked: The questions.
        rounds: Interleaved rounds; medians are returned.
    """
    plain = [text for domain in DOMAINS for text in asked.questions[domain]]
    system = Message("system", system_tags(dict(zip(DOMAINS, wanted, strict=True))))
    tagged = [(system, Message("user", text)) for text in plain]
    told, steered = [], []
    for _ in range(rounds):
        start = time.process_time()
        model.generate(tagged, max_new_tokens=NEW_TOKENS)
        told.append(time.process_time() - start)
        start = time.process_time()
        with model.steered(knobs):
            model.generate(plain, max_new_tokens=NEW_TOKENS)
        steered.append(time.process_time() - start)
    tokens = [len(encode_prompt(model.chat, prompt)) for prompt in tagged]
    bare = [len(encode_prompt(model.chat, text)) for text in plain]
    return Prompting(
        sum(tokens) / len(tokens), sum(bare) / len(bare), median(told), median(steered)
    )
