"""The card of a shipped vector, and the list of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steer.algebra import Vector
from steer.demo import smollm2
from steer.demo.real.behaviours import ASKED, held_out, pairs
from steer.demo.real.claim import SIGNS, Claim, claim_of
from steer.demo.real.rules import OPPOSITES, judge
from steer.measure import Share
from steer.pairs import Pair, Pairs
from steer.selection import Selection
from steer.show._markdown import markdown_table, markdown_text

_SHOWN = 3  # questions whose answers a card shows
_SIDES = ("at −c", "at 0", "at +c")
COMMAND = "python -m vectors.make_smollm2"


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """A vector, with the results of choosing and measuring it.

    Args:
        name: Name of its file, without `.safetensors`.
        vector: The vector, as it is saved.
        selection: The result of `select`.
        claim: The measured effect of the vector on answers.
        answers: Those answers, by sign.
        seconds: Total CPU time.
    """

    name: str
    vector: Vector
    selection: Selection
    claim: Claim
    answers: Mapping[int, Sequence[str]]
    seconds: float

    @property
    def summary(self) -> str:
        """The figures in one line."""
        claim, found = self.claim, self.selection
        shares = ", ".join(f"{claim.share(claim.behaviour, sign).value:.0%}" for sign in SIGNS)
        return (
            f"{self.name}: layer {found.layer}, coefficient {claim.coefficient:.3g}, KL "
            f"{found.kl:.2f}; {shares} {claim.behaviour} at −, 0, +; "
            f"{claim.topic(1).value:.0%} on topic"
        )


def card(made: Made) -> str:
    """Return the card of a vector, in Markdown.

    Args:
        made: The vector and its results.
    """
    behaviour = made.claim.behaviour
    return (
        "\n\n".join(
            [
                f"# {made.name}",
                f"{_about(made)}",
                f"## Setting\n\n{_setting(made)}",
                f"## What it does to answers\n\n{_shares(made.claim)}",
                _samples(made),
                f"## Pairs\n\n{_pairs(behaviour)}",
                f"## Limits\n\n{_limits(made)}",
            ]
        )
        + "\n"
    )


def index(folder: Path) -> str:
    """Return the list of the vectors in a folder, in Markdown, from the content of their files.

    Args:
        folder: The folder of the files.
    """
    rows = []
    for path in sorted(folder.glob("*.safetensors")):
        vector = Vector.load(path)
        claim, tuning = claim_of(vector), vector.tuning
        if claim is None or tuning is None:
            continue
        where = "weights" if tuning.layer is None else f"layer {tuning.layer}"
        shares = [f"{claim.share(claim.behaviour, s).value:.0%}" for s in SIGNS]
        link, topic = f"[{path.stem}]({path.stem}.md)", f"{claim.topic(1).value:.0%}"
        rows.append([link, where, f"{claim.coefficient:.3g}", *shares, topic])
    head = ("vector", "where", "c", "at −c", "at 0", "at +c", "on topic at +c")
    return f"""# Vectors of SmolLM2-135M-Instruct

Each file steers one behaviour of a 4-bit quantisation of SmolLM2-135M-Instruct, the file of SHA-256
`{smollm2.GGUF_SHA256}`, which `make model` fetches. Figures hold for that file, loaded in float32.
The shares count the answers that a rule judges to show the behaviour, out of {len(ASKED)} greedy
answers to new questions; each card gives intervals, answers and limits.

{markdown_table(head, rows)}

This command writes the files:

<!-- not run: it takes minutes of CPU time -->
```console
$ {COMMAND}
```

Check the figures on any copy of the model with

<!-- not run: it needs the real model -->
```console
$ steer check vectors/smollm2-135m/cheerful.safetensors --model MODEL
```

Licence: Apache-2.0, like the model and this repository, which contains the pairs.
"""


def _about(made: Made) -> str:
    what = "An alignment vector" if made.selection.layer is None else "A residual vector"
    behaviour = made.claim.behaviour
    return (
        f"{what} for SmolLM2-135M-Instruct that makes answers {behaviour}. Model file: "
        f"`{Path(smollm2.MEMBER).name}`, SHA-256 `{smollm2.GGUF_SHA256}`, loaded in float32. "
        f"Licence: Apache-2.0, like the model. Written by `{COMMAND} --only {made.name}` in "
        f"{made.seconds:.0f} s of CPU time."
    )


def _setting(made: Made) -> str:
    found, claim = made.selection, made.claim
    [result] = found.held_out.values()
    where = "all of its weights" if found.layer is None else f"layer {found.layer}"
    read = "" if found.layer is None else f", read at `{found.position}`"
    moved = "" if found.displacement is None else f", {found.displacement:.2f} of the stream's norm"
    rows = [
        ("where", f"{where}{read}"),
        ("coefficient c", f"{claim.coefficient:.3g}{moved}"),
        ("KL on neutral text", f"{found.kl:.2f} nats per token (budget {found.limits.kl:g})"),
        (
            "preference accuracy on unseen pairs",
            f"{result.steered}, unsteered {result.base}",
        ),
        ("random vector of equal norm", str(result.random)),
    ]
    return f"""{markdown_table(("", ""), rows)}

`steer.select` chose it among {len(found.trials)} measured settings on 12 validation pairs;
the accuracies were measured on 12 other pairs. Likelihood effect: {_effect(found)}; p =
{result.evidence.p_unsteered:.2g} against the unsteered model; {result.evidence.p_random:.2g}
against random vectors, times {result.evidence.settings} for the candidates raced."""


def _effect(found: Selection) -> str:
    return "yes" if found.likelihood_effect else "not shown"


def _shares(claim: Claim) -> str:
    labels = [claim.behaviour, *filter(None, [OPPOSITES[claim.behaviour]])]
    rows = [[label, *(str(claim.share(label, sign)) for sign in SIGNS)] for label in labels]
    rows.append(["on topic", *(str(claim.topic(sign)) for sign in SIGNS)])
    return f"""Greedy answers of {claim.tokens} tokens to {len(ASKED)} questions that occur in no
pair, judged by the rules of `steer.demo.real.rules`; shares with 95% Wilson intervals.

{markdown_table(("", *_SIDES), rows)}

The change from 0 to +c is {claim.change}. The rule errs on {_error(claim.behaviour)} of the
answers of the held-out pairs."""


def _error(behaviour: str) -> Share:
    """Return the share of held-out answers that the rule assigns to the other side."""
    label, unseen = judge(behaviour), held_out(behaviour)
    wrong = [label(p.prompt, p.chosen) != behaviour for p in unseen]
    wrong += [label(p.prompt, p.rejected) == behaviour for p in unseen]
    return Share(sum(wrong), len(wrong))


def _samples(made: Made) -> str:
    rows = [
        [ASKED[k], *(markdown_text(made.answers[sign][k]) for sign in SIGNS)] for k in range(_SHOWN)
    ]
    return markdown_table(("question", *_SIDES), rows)


def _pairs(behaviour: str) -> str:
    trained, unseen = pairs(behaviour), held_out(behaviour)
    return (
        f"{len(trained)} training pairs and {len(unseen)} held-out pairs, written for this project "
        "(`steer.demo.real.behaviours`, Apache-2.0); no question and no answer template is in "
        f"both. The first of each:\n\n{_shown(trained)}\n{_shown(unseen)}"
    )


def _shown(part: Pairs) -> str:
    first: Pair = part[0]
    return f"- {first.prompt} *{first.chosen}* rather than *{first.rejected}*"


def _limits(made: Made) -> str:
    said = [
        "Measured on one quantised file of a small model, on short greedy answers to everyday "
        "questions in English, asked without a system message.",
        "The rule counts words. It judges neither meaning nor truth; steered answers of a model "
        "of this size are often wrong.",
    ]
    if OPPOSITES[made.claim.behaviour] is None:
        said.append("The behaviour has no opposite with a rule, so nothing is claimed at −c.")
    return "\n".join(f"- {line}" for line in said)
