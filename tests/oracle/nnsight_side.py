"""What nnsight reads and does, family by family: run as a program, in a process of its own.

`python -m tests.oracle.nnsight_side OUT FAMILY…` writes one file of tensors. Importing nnsight
gives every Python object a `.save` and replaces `Tensor.backward`, so no test process imports it.
"""

import sys
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel
from safetensors.torch import save_file
from torch import Tensor

from tests.oracle.questions import IDS, NAMES, ROW_VECTORS, STEPS, VECTORS
from tests.tiny import tiny_model, tiny_tokenizer


def stream(out: Any) -> Tensor:
    """The hidden state in what a block returned: a tensor, or the first entry of a tuple."""
    return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


def blocks_of(model: Any, family: str) -> list[Any]:
    for name in NAMES[family].split("."):
        model = getattr(model, name)
    return list(model)


def captured(model: Any, blocks: list[Any]) -> Tensor:
    with model.trace(IDS[:1]):
        streams = nnsight.save([])
        for block in blocks:
            streams.append(stream(block.output))
    return torch.cat(streams)


def edited_logits(model: Any, blocks: list[Any], vectors: dict[int, Tensor]) -> Tensor:
    with model.trace(IDS[:1]):
        for layer, v in vectors.items():
            stream(blocks[layer].output)[:] += v
        logits = nnsight.save(model.output.logits)
    return logits  # type: ignore[no-any-return]  # noqa: RET504


def seen_by_the_next_block(model: Any, blocks: list[Any], vectors: dict[int, Tensor]) -> Tensor:
    """The input of block 2 under the edit: what was written at the output of block 1."""
    with model.trace(IDS[:1]):
        stream(blocks[1].output)[:] += vectors[1]
        seen = nnsight.save(blocks[2].input)
    return seen  # type: ignore[no-any-return]  # noqa: RET504


def edited_rows(model: Any, blocks: list[Any]) -> Tensor:
    """Two prompts in one forward, each with an edit of its own."""
    with model.trace() as tracer:
        with tracer.invoke(IDS[:1]):
            stream(blocks[1].output)[:] += ROW_VECTORS[0]
            first = nnsight.save(model.output.logits)
        with tracer.invoke(IDS[1:]):
            stream(blocks[1].output)[:] += ROW_VECTORS[1]
            second = nnsight.save(model.output.logits)
    return torch.cat([first, second])


def edited_tokens(model: Any, blocks: list[Any], vectors: dict[int, Tensor]) -> Tensor:
    inputs = {"input_ids": IDS[:1], "attention_mask": torch.ones_like(IDS[:1])}
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
    with model.generate(inputs, **options, pad_token_id=0) as tracer:
        for _ in tracer.iter[:STEPS]:
            for layer, v in vectors.items():
                stream(blocks[layer].output)[:] += v
        out = nnsight.save(tracer.result)
    return out[:, IDS.shape[1] :]  # type: ignore[no-any-return]


def answers(family: str) -> dict[str, Tensor]:
    hf = tiny_model(family)
    model = TransformersModel(hf, tokenizer=tiny_tokenizer(), task="text-generation")
    blocks = blocks_of(model, family)
    found = {
        "captured": captured(model, blocks),
        "rows": edited_rows(model, blocks),
        "seen": seen_by_the_next_block(model, blocks, VECTORS["one layer"]),
    }
    for name, vectors in VECTORS.items():
        found[f"logits, {name}"] = edited_logits(model, blocks, vectors)
        found[f"tokens, {name}"] = edited_tokens(model, blocks, vectors)
    return {f"{family}: {name}": t.detach().clone().contiguous() for name, t in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    path, *families = sys.argv[1:]
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for family in families:
            found |= answers(family)
    save_file(found, path)


if __name__ == "__main__":
    main()
