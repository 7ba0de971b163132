"""Stage `test`: every knob of a behaviour on the test pairs, read once, and its answers."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import steer
from notebooks.study.behaviours import Behaviour
from notebooks.study.make import spending
from notebooks.study.rows import Row
from steer.measure import (
    NeutralText,
    degeneration,
    judge_answers,
    kl_divergence,
    neutral_text,
    perplexity,
    random_like,
    trained_judge,
)
from steer.pairs import Message

TOKENS = 40  # of an answer
RANDOM = 4  # random vectors of the chosen one's norm
NEUTRAL = (  # none of them is used to choose
    "Tell me about the moon.",
    "What is a glacier?",
    "Name three kinds of bridges.",
    "Why do leaves change colour?",
    "Describe a lighthouse.",
    "What does a carpenter do?",
    "How old is the pyramid of Giza?",
    "Explain what a comet is.",
    "List some birds of the sea.",
    "What is paper made of?",
    "Who was Marie Curie?",
    "What is the capital of Norway?",
    "How does a sundial work?",
    "Describe the taste of a lemon.",
    "What is a symphony?",
    "Where do penguins live?",
)

Setting = tuple[str, float, AbstractContextManager[object], tuple[Message, ...]]


def test(model: steer.Model, own: Behaviour, made: list[Row], folder: Path) -> Iterator[Row]:
    """Yield a row for each condition: margins of each pair, KL, perplexity, answers, verdicts.

    Args:
        model: The model.
        own: The behaviour.
        made: The rows of the stage `make`.
        folder: Where the vectors are.
    """
    neutral = neutral_text(model, NEUTRAL)
    prompts = [pair.prompt for pair in own.test]
    domain = neutral_text(model, list(dict.fromkeys(prompts))[:16])
    judge, error = _judge(model, own)
    for name, coefficient, context, prefix in _settings(model, own, made, folder):
        start = time.process_time()
        asked = [(*prefix, Message("user", question)) for question in own.asked]
        with context:
            margins = steer.preference(model, own.test, prefix=prefix).margins
            kls = {} if prefix else _kls(model, neutral=neutral, own_prompts=domain)
            answers = model.generate(asked, max_new_tokens=TOKENS, batch_size=10)
        read = [k for k, answer in enumerate(answers) if answer.strip()]
        judged = judge_answers(judge, own.asked, answers, wanted=_wanted(own))
        fluent = perplexity(model, [own.asked[k] for k in read], [answers[k] for k in read])
        yield {
            "behaviour": own.name,
            "method": name,
            "coefficient": coefficient,
            "margins": [round(float(m), 5) for m in margins],
            **kls,
            "answers": list(answers),
            "verdicts": [verdict.label for verdict in judged.verdicts],
            "judged": judged.value,
            "judge_error": error,
            "repetition": degeneration(answers).value,
            "perplexity_of_answers": fluent.value if read else None,
            "cpu_seconds": round(time.process_time() - start, 1),
        }


def _settings(
    model: steer.Model, own: Behaviour, made: list[Row], folder: Path
) -> Iterator[Setting]:
    """Yield the conditions: no steering, a prompt, random vectors, and every knob that was made."""
    yield "unsteered", 0.0, nullcontext(), ()
    yield "prompt", 0.0, nullcontext(), (Message("system", own.instruction),)
    for row in made:
        name, c = row["method"], row["coefficient"]
        vector = steer.Vector.load(folder / row["file"])
        yield name, c, model.steered(vector, c), ()
        if name in ("dpo", "ipo"):
            yield f"{name} at 1", 1.0, model.steered(vector, 1.0), ()
        if name == "mean":
            for seed in range(RANDOM):
                other = random_like(vector, seed)
                at_budget = spending(model, other)
                yield f"random {seed}", at_budget, model.steered(other, at_budget), ()


def _kls(model: steer.Model, **texts: NeutralText) -> dict[str, float]:
    return {f"kl_{name}": kl_divergence(model, text).value for name, text in texts.items()}


def _judge(model: steer.Model, own: Behaviour) -> tuple[Any, float | None]:
    """Return the rule of a style, or a classifier fitted on training texts, and its error."""
    if own.rule is not None:
        return own.rule, None
    recording = steer.record(model, own.train, at="response_mean", progress=False)
    found = trained_judge(model, recording, own.validation)
    return found, found.error.value


def _wanted(own: Behaviour) -> str:
    return "chosen" if own.rule is None else own.name
