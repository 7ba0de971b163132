"""What becomes of every family: one row each, and the page that shows them."""

from dataclasses import dataclass
from pathlib import Path

import transformers

import steer
from steer.errors import ArchitectureError
from steer.network import Architecture
from tests.models.steered import check_steered
from tests.models.tiny import class_name, model_types, tiny_causal_model

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
WANTED = 168  # verified families, at least

_HEAD = """\
# Models

Every model type that `AutoModelForCausalLM` of transformers {version} knows, tried as a tiny random
model: {verified} of the {built} that a small config builds are verified, {refused} are refused,
each with the reason. Encoders are built as decoders (`is_decoder=True`). `make models` writes this
page.

A verified model has blocks that run once each, in order, over one stream `[batch, pos, d_model]`;
the readout named here gives the model's own logits from that stream; no token acts on those before
it; and a row that is padded on the right gives what it gives alone. Every model is checked so when
it is loaded, since a checkpoint may differ from its family. Here each is steered too: a vector adds
what it holds, and a row beside a longer one is what it is alone. `(none)` stands for no final norm.
"""


@dataclass(frozen=True)
class Row:
    """What became of one model type.

    Args:
        model_type: The type.
        outcome: Whether it is `verified`, `refused`, or not `built`.
        cells: The rest of its line in the table.
    """

    model_type: str
    outcome: str
    cells: tuple[str, ...]

    def __str__(self) -> str:
        cells = (f"`{self.model_type}`", f"`{class_name(self.model_type)}`", *self.cells)
        return f"| {' | '.join(cells)} |"


def row(model_type: str) -> Row:
    """Build a model type, look for its parts, steer it, and return what became of it."""
    try:
        model = tiny_causal_model(model_type)
    except (ValueError, TypeError, ImportError) as error:
        said = next(filter(None, map(str.strip, str(error).splitlines())))
        return Row(model_type, "not built", (said.partition(". ")[0].replace("|", "\\|"),))
    try:
        lm = steer.Model(model)
    except ArchitectureError as error:
        return Row(model_type, "refused", (error.what.partition(": ")[2] or error.what,))
    check_steered(lm)
    return Row(model_type, "verified", _parts(lm.architecture))


def page(rows: list[Row]) -> str:
    """Return the page of the documentation."""
    kinds = {kind: [r for r in rows if r.outcome == kind] for kind in ("verified", "refused")}
    others = [r for r in rows if r.outcome == "not built"]
    head = _HEAD.format(
        version=transformers.__version__,
        verified=len(kinds["verified"]),
        built=len(rows) - len(others),
        refused=len(kinds["refused"]),
    )
    return "\n".join(
        [
            head,
            *_table("Verified", ("blocks", "readout"), kinds["verified"]),
            *_table("Refused", ("why",), kinds["refused"]),
            *_table("Not built from a small config", ("what transformers says",), others),
        ]
    )


def every_row() -> list[Row]:
    """Return the rows of all model types."""
    return [row(model_type) for model_type in model_types()]


def _table(title: str, columns: tuple[str, ...], rows: list[Row]) -> list[str]:
    heads = ("model type", "class", *columns)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *map(str, rows)]
    return [f"## {title}", "", *lines, ""] if rows else []


def _parts(found: Architecture) -> tuple[str, str]:
    """Return where the blocks are, and what leads from the last of them to the logits."""
    names = [found.names[part] for part in ("final_norm", "projection") if part in found.names]
    names.append(found.names["unembedding"])
    shown = ["(none)" if name == "none" else f"`{name}`" for name in names]
    readout = " → ".join(shown) + "".join(f", {rule}" for rule in found.logit_rules)
    return f"`{found.names['blocks']}`", readout
