"""Run in llama.cpp's environment: `python logits.py MODEL PROMPTS OUT [VECTOR …]`.

PROMPTS is JSON, a list of lists of tokens. OUT gets the logits after each prompt, without a
vector and with each file, as one array [vector + 1, prompt, vocab].
"""

import ctypes
import json
import sys

import llama_cpp
import numpy as np
from gguf import GGUFReader


def control(path: str, layers: int) -> np.ndarray:
    """Return a file's directions as llama.cpp loads them: row r for block r + 1."""
    found = {int(t.name.split(".")[1]): np.array(t.data) for t in GGUFReader(path).tensors}
    rows = np.zeros((layers, len(next(iter(found.values())))), np.float32)
    for layer, direction in found.items():
        rows[layer - 1] = direction
    return rows


def main() -> None:
    """Write the logits."""
    model, prompts, out, *vectors = sys.argv[1:]
    lm = llama_cpp.Llama(model, n_ctx=512, logits_all=True, verbose=False, n_threads=1)
    layers = llama_cpp.llama_model_n_layer(lm._model.model)
    found = []
    for path in [None, *vectors]:
        if path is not None:
            rows = control(path, layers)
            data = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            code = llama_cpp.llama_set_adapter_cvec(
                lm.ctx, data, rows.size, rows.shape[1], 1, layers
            )
            if code:
                raise RuntimeError(f"llama.cpp refused {path}: {code}")
        own = []
        with open(prompts) as file:
            for tokens in json.load(file):
                lm.reset()
                lm.eval(tokens)
                own.append(np.array(lm.scores[len(tokens) - 1], np.float32))
        found.append(own)
    np.save(out, np.array(found))


if __name__ == "__main__":
    main()
