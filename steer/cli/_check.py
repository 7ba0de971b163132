"""`steer check`."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from steer.cli._common import Device, Dtype, Progress, load_model, say, working

if TYPE_CHECKING:
    from steer.algebra import Vector
    from steer.demo.real.claim import Claim
    from steer.model import Model
    from steer.pairs import Pairs


def check(
    file: Annotated[Path, typer.Argument(help="A vector file.")],
    model: Annotated[str, typer.Option(help="Hub id, folder, GGUF file, `smollm2` or `demo`.")],
    pairs: Annotated[
        str | None,
        typer.Option(help="Pairs to measure the stored accuracy on: a file, or a data set's id."),
    ] = None,
    progress: Progress = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Compare the model of a vector with another, and measure the vector's claims on it.

    The status is 1 if a fingerprint differs or a claim does not hold.
    """
    from steer.algebra import Vector
    from steer.demo.real.claim import claim_of
    from steer.pairs import Pairs

    vector = Vector.load(file)
    claim = claim_of(vector)
    chosen = None if pairs is None else Pairs.load(pairs)
    with working(progress), warnings.catch_warnings():
        lm = load_model(model, dtype, device)
        holds = [_fits(vector, lm)]
        warnings.filterwarnings("ignore", "the vector of domain .* was made for another")
        if claim is not None:
            holds.append(_answers(claim, vector, lm))
        if chosen is not None:
            holds.append(_accuracy(chosen, vector, lm))
    if len(holds) == 1:
        say("Nothing was measured: the file stores no claim, and --pairs was not given.")
    raise typer.Exit(int(not all(holds)))


def _fits(vector: "Vector", lm: "Model") -> bool:
    """Print which fingerprints differ; a vector made by hand has none."""
    from steer.network._compatibility import fingerprint_differences

    made_for = vector.provenance.model
    if made_for is None:
        say("The file names no model.")
        return True
    differing = fingerprint_differences(made_for, lm.info)
    table = Table("", "the file", "this model")
    table.add_row("model", made_for.model_id, lm.info.model_id)
    for name in ("configuration", "tokenizer", "chat template"):
        table.add_row(name, "", "differs" if name in differing else "equal")
    say(table)
    say("Fingerprints do not cover the weights; claims are measured.")
    return not differing


def _answers(claim: "Claim", vector: "Vector", lm: "Model") -> bool:
    """Print the claimed and the measured shares of judged answers."""
    from steer.demo.real.claim import SIGNS, measure

    found, _ = measure(
        lm, vector, claim.behaviour, claim.coefficient, tokens=claim.tokens, strict=False
    )
    table = Table(f"{claim.behaviour} answers", "claimed", "measured")
    for sign in SIGNS:
        shares = [str(of.share(claim.behaviour, sign)) for of in (claim, found)]
        table.add_row(f"at {sign * claim.coefficient:.3g}", *shares)
    table.add_row("on topic", str(claim.topic(1)), str(found.topic(1)))
    say(table)
    holds = claim.held_by(found)
    say(
        f"The claim {'holds' if holds else 'does not hold'}: the change is "
        f"{found.change.value:+.1%}, claimed {claim.change}."
    )
    return holds


def _accuracy(pairs: "Pairs", vector: "Vector", lm: "Model") -> bool:
    """Print the preference accuracy on pairs at the stored setting, beside the stored one."""
    from steer.algebra import compose
    from steer.algebra._file.named import recommended
    from steer.measure import Share, preference

    tuning = vector.tuning
    before = preference(lm, pairs).accuracy
    if tuning is not None and tuning.layer is not None:
        vector = vector[tuning.layer]
    knob = {vector.provenance.domain or "vector": vector}
    with lm.steered(compose(knob, gate=vector.gate)(recommended(knob)), strict=False):
        after = preference(lm, pairs).accuracy
    claimed = None if tuning is None else tuning.score
    say(
        f"Preference accuracy on {len(pairs)} pairs: {after}, unsteered {before}"
        f"{'' if claimed is None else f', claimed {claimed:.1%}'}."
    )
    if claimed is None:
        return True
    return after.value >= Share(round(claimed * after.n), after.n).interval[0]
