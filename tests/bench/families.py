"""Which families of models are packed while recording, and which run padded, and why."""

from collections.abc import Iterator

import steer
from steer.extract import packing_report
from tests.bench.lines import Limit, Line, exact
from tests.bench.registry import Options, bench
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

_REQUIRED = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "phi3")
_LONGEST = 192  # tokens; windows and scaled positions show at their own length only


@bench("families")
def families(options: Options) -> Iterator[Line]:
    """Families that are packed, and what makes the others fall back."""
    found = {}
    for family in FAMILIES:
        lm = steer.Model(tiny_model(family), tiny_tokenizer())
        found[family] = packing_report(lm, _LONGEST)
    for family, packing in found.items():
        yield Line(f"families.{family}", str(packing), exact(float(packing.packed)), 1)
    required = sum(found[family].packed for family in _REQUIRED)
    yield Line(
        "families.required",
        f"packed of {', '.join(_REQUIRED)}",
        exact(float(required)),
        len(_REQUIRED),
        Limit(len(_REQUIRED), "at least"),
    )
