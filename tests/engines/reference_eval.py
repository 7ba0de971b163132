"""What `Model` answers: `python -m tests.engines.reference_eval MODEL VECTORS DATA OUT`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

import steer
from steer.harness import run_harness
from tests.engines.texts import (
    BY_SCOPE,
    GRID,
    PROMPTS,
    RESPONSES,
    ROWS,
    SCOPES,
    SETTING,
    TASKS,
    composition,
    harness,
    pairs,
    steered,
)


def main() -> None:
    """Write the answers and the log-probabilities of every prompt at its own row."""
    model, folder, data, out = map(Path, sys.argv[1:])
    lm = steer.Model.from_pretrained(model, dtype=torch.float32)
    knobs = composition(folder)
    found: dict[str, Any] = {}
    for scope in SCOPES:
        with lm.steered(steered(knobs, scope), ROWS):
            found[f"generate {scope}"] = lm.generate(PROMPTS, max_new_tokens=12)
            found[f"logprobs {scope}"] = [p.tolist() for p in lm.logprobs(PROMPTS, RESPONSES)]
    found["harness"] = run_harness(lm, steered(knobs, "own")(SETTING), TASKS, **harness(data)).rows
    swept = steer.sweep(lm, knobs, pairs(), GRID, scope=BY_SCOPE, progress=False)
    found["sweep"] = swept.rows
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
