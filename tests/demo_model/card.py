"""Measure the demo model and write its card: `python -m tests.demo_model.card`."""

import argparse
from pathlib import Path

from steer.demo import MODEL_PATH
from steer.demo.data import DOMAINS, LEVELS
from steer.errors import FileError
from steer.store import write_text
from tests.demo_model.conversations import MIX, P_ECHO, P_GENERIC, P_GENERIC_LATE
from tests.demo_model.displacement import BLOCKS, LONGEST, P_DISPLACED
from tests.demo_model.figures import ENDS, KNOB, Figures, measure
from tests.demo_model.measure import BLOCK, GATE_BLOCK, Subject
from tests.demo_model.train import DISPLACED_FROM, LATE, SEED, STEPS

_SHORT = {False: "raw", True: "rescaled"}
AIM = 0.95
_COMMAND = "python -m tests.demo_model.train --threads 1"
_GATE = {False: "no gate", True: "gated"}


def write_card(
    path: Path,
    figures: Figures,
    *,
    steps: int,
    seed: int,
    parameters: int,
) -> None:
    """Write the card; every number in it is an argument or a constant of the training."""
    sections = (
        _about(steps, seed, parameters),
        _training(),
        _tags(figures),
        _dose(figures),
        _together(figures),
        _short(figures),
        _limits(figures),
    )
    write_text(path, "\n\n".join(sections) + "\n", FileError)


def _about(steps: int, seed: int, parameters: int) -> str:
    return f"""# The demo model

A toy for showing and testing the mechanics of steering: a Llama of 6 blocks and width 128
({parameters:,} parameters, float32) with a word-level vocabulary, trained from random weights on
generated conversations. It knows a few hundred words and nothing about medicine, law or money;
**no answer of it is advice**. Figures measured on it say nothing about other models.

- **Made by** `{_COMMAND} --steps {steps} --seed {seed} --card CARD.md`,
  which trains, saves, loads the saved files again and measures them; it wrote this card. Equal
  arguments give equal weights on one machine with one number of threads; another processor may
  round differently.
- **System tags.** `medical=expert legal=avoidance` as system message sets the level of each
  domain named. The levels are {", ".join(LEVELS)}; the domains {", ".join(DOMAINS)}.
- **Topics.** 16 per domain: 10 in the training pairs, 3 for validation, 3 for test. Held out means
  held out from the pairs: the model itself has met all 16 in its training."""


def _training() -> str:
    forms = "\n".join(f"| {name} | {part:.0%} |" for name, (part, _) in MIX.items())
    return f"""## What it was trained on

| form of conversation | share |
|---|---|
{forms}

Loss on the replies only. **The PaLRS recipe reads a form that was trained:** in
{MIX["answer in the user's slot"][0]:.0%} of the conversations the user's message is itself an
answer, and the reply keeps its domain, and its level with probability {P_ECHO:.2f} (else one of
the other two levels). A model that has never met an answer in the user's slot need not have
such a direction there. **Without a tag the answer is generic** with probability
{P_GENERIC:.2f}, and {P_GENERIC_LATE:.2f} in a short second stage of {LATE:.0%} as many steps, else
one of the other two levels: the unsteered model stands between both ends of the knob.

**Its training made it tolerate steering:** from {DISPLACED_FROM:.0%} of the first stage on, in each
step {P_DISPLACED:.0%} of the rows get a vector of random direction, at most {LONGEST} times as
long as their own activations, added at all tokens to the output of one of the blocks
{", ".join(map(str, BLOCKS))}. The directions are drawn at random, none belongs to a domain or a
level; but this is the form in which the recipe injects. Without it, in trials with the same
language, PaLRS at ±1 broke the wording of many answers."""


def _tags(figures: Figures) -> str:
    rows = "\n".join(
        f"| `{d}={x}` | " + " | ".join(f"{figures.tags[d, x, k]:.0%}" for k in (1, 2, 3)) + " |"
        for d in DOMAINS
        for x in LEVELS
    )
    return f"""## Tags followed

Share of greedy replies that the rule judge finds in the asked domain at the tagged level:
{figures.n_tags} questions on test topics for each cell, tags in random order, levels of the
other tags at random. Least of all cells: {min(figures.tags.values()):.0%}.

| tag | alone | two tags | three tags |
|---|---|---|---|
{rows}"""


def _dose(figures: Figures) -> str:
    tables = "\n\n".join(_dose_table(figures, rescaled) for rescaled in (False, True))
    return f"""## PaLRS in its own domain

The vector is the mean over 100 expert answers minus the mean over 100 avoidance answers, each
alone in the user's slot, at the output of block {BLOCK} (0-based) at the last template token;
rescaled, it is as long as the mean over the expert answers. Coefficient times vector is added to
the output of block {BLOCK} at all tokens. No system tag; {figures.n} questions on test topics.
Shares of avoidance / generic / expert answers; what is missing to 100% is unclear.

{tables}"""


def _dose_table(figures: Figures, rescaled: bool) -> str:
    head = f"| {_SHORT[rescaled]} | " + " | ".join(DOMAINS) + " |\n|---|" + "---|" * len(DOMAINS)
    rows = [
        f"| {c:+.2f} | "
        + " | ".join(
            " / ".join(f"{figures.dose[rescaled, d, c][x]:.0%}" for x in LEVELS) for d in DOMAINS
        )
        + " |"
        for c in KNOB
    ]
    return "\n".join([head, *rows])


def _together(figures: Figures) -> str:
    kinds = [(r, g) for r in (False, True) for g in (False, True)]
    head = " | ".join(f"{_SHORT[r]}, {_GATE[g]}" for r, g in kinds)
    combinations = sorted({signs for _, _, signs in figures.combinations})
    rows = "\n".join(
        f"| {' / '.join(ENDS[s] for s in signs)} | "
        + " | ".join(f"{figures.combinations[r, g, signs]:.0%}" for r, g in kinds)
        + " |"
        for signs in combinations
    )
    spill = " | ".join(f"{100 * figures.spill[kind]:.0f} points" for kind in kinds)
    cosines = ", ".join(f"{a}/{b} {value:.3f}" for (a, b), value in figures.cosines.items())
    return f"""## Three domains at once

Gated, each row gets the vector of the domain whose mean its own prompt is nearest to (output of
block {GATE_BLOCK} at the last template token, before any steering): {figures.routed:.1%} of the
test prompts are routed rightly. Where it is right, moving one domain cannot change another.
Without a gate every row gets the sum ({figures.n_ungated} questions per domain). The order
is {" / ".join(DOMAINS)}. Share at the wanted level in the domain where it is least:

| wanted | {head} |
|---|{"---|" * len(kinds)}
{rows}
| largest change elsewhere when one domain is moved to ±1 | {spill} |

Cosines between the raw vectors: {cosines}. Without a gate each vector moves every domain."""


def _short(figures: Figures) -> str:
    """Return a list of every share that misses the aim."""
    tags = [
        f"- tag `{d}={x}` among {k}: {value:.1%}"
        for (d, x, k), value in figures.tags.items()
        if value < AIM
    ]
    ends = [
        f"- {_SHORT[r]}, {d} at {c:+d}: {figures.dose[r, d, c][level]:.1%} {level}"
        for r in (False, True)
        for d in DOMAINS
        for c, level in ENDS.items()
        if figures.dose[r, d, c][level] < AIM
    ]
    missed = "\n".join(tags + ends) or "- none"
    return f"""## Where it falls short

The aim is {AIM:.0%} for every tag and at both ends of the knob. Below it:

{missed}"""


def _limits(figures: Figures) -> str:
    kl = "\n".join(
        f"| {_SHORT[r]} | {d} | " + " | ".join(f"{figures.kl[r, d, c]:.3f}" for c in ENDS) + " |"
        for r in (False, True)
        for d in DOMAINS
    )
    return f"""## Side effects

KL(steered ‖ unsteered) on the 30 small-talk prompts, without a gate, nats per token of the
unsteered reply:

| vector | domain | −1 | +1 |
|---|---|---|---|
{kl}

Words outside the vocabulary are read as `<unk>`."""


def main(arguments: list[str] | None = None) -> None:
    """Measure a saved model and write its card.

    Args:
        arguments: Command-line arguments; those of the process if not given.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    parser = argparse.ArgumentParser(description="Measure the demo model.")
    parser.add_argument("--model", type=Path, default=MODEL_PATH, help="folder to measure")
    parser.add_argument(
        "--card", type=Path, default=MODEL_PATH.parent / "CARD.md", help="file to write"
    )
    parser.add_argument("--questions", type=int, default=200, help="per domain")
    options = parser.parse_args(arguments)
    model = LlamaForCausalLM.from_pretrained(options.model).eval()
    subject = Subject(model, AutoTokenizer.from_pretrained(options.model))
    figures = measure(subject, options.questions)
    write_card(options.card, figures, steps=STEPS, seed=SEED, parameters=model.num_parameters())


if __name__ == "__main__":
    main()
