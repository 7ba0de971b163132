"""What the hook engine answers: `python -m tests.engines.reference MODEL VECTORS REQUESTS OUT`.

A process of its own, since vLLM changes classes of transformers in the process that it runs in.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import steer
from steer.algebra import parse_scope


def answer(network: Any, lm: steer.Model, vectors: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Return the greedy tokens of one request, and how far each was from the next best."""
    ids = torch.tensor([request["prompt"]])
    with _context(lm, vectors, request["setting"]):
        out = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request["tokens"],
            min_new_tokens=request["tokens"],
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    scores = torch.stack(out.scores)[:, 0].log_softmax(dim=-1)
    best = scores.topk(2).values
    return {
        "tokens": out.sequences[0, ids.shape[1] :].tolist(),
        "gaps": (best[:, 0] - best[:, 1]).tolist(),
    }


def _context(lm: steer.Model, vectors: Any, setting: Any) -> Any:
    if setting is None:
        return nullcontext()
    coefficients = setting.get("coefficients", setting)
    scope = parse_scope(setting.get("scope", "all") if "coefficients" in setting else "all")
    parts = {domain: steer.Part(vectors[domain], scope=scope) for domain in coefficients}
    return lm.steered(steer.compose(parts), coefficients)


def main() -> None:
    """Answer every request of a file, one after another."""
    model, folder, asked, out = map(Path, sys.argv[1:])
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    lm = steer.Model(network, AutoTokenizer.from_pretrained(model))
    vectors = {path.stem: steer.Vector.load(path) for path in folder.glob("*.safetensors")}
    found = [answer(network, lm, vectors, request) for request in json.loads(asked.read_text())]
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
