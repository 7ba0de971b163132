"""A control vector does in llama.cpp what it does here, as far as quantised arithmetic allows."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import steer
from steer import exchange
from steer.demo import smollm2

PYTHON = os.environ.get("STEER_LLAMA_CPP")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="`make llama-cpp` runs it")
PROMPTS = ("What is a glacier?", "How do I ask my neighbour to be quiet?", "Tell me about bread.")
LAYERS = {"one": (14,), "four": (8, 14, 20, 26)}
WITHIN = 0.10  # relative error of the change in logits


def test_the_change_in_logits_is_that_of_the_hook_engine(tmp_path: Path) -> None:
    folder = smollm2.model_folder()
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lm = steer.Model(network, tokenizer)
    prompts = [
        list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True
            )["input_ids"]
        )
        for prompt in PROMPTS
    ]
    generator = torch.Generator().manual_seed(0)
    vectors = {
        name: steer.Vector.of({layer: torch.randn(576, generator=generator) for layer in layers})
        for name, layers in LAYERS.items()
    }
    files = []
    for name, vector in vectors.items():
        files.append(tmp_path / f"{name}.gguf")
        exchange.write(vector, files[-1])
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    command = [PYTHON, Path(__file__).with_name("logits.py"), smollm2.gguf_path()]
    command += [tmp_path / "prompts.json", tmp_path / "logits.npy", *files]
    subprocess.run([str(part) for part in command], check=True)
    plain, *steered = np.load(tmp_path / "logits.npy")
    errors = {}
    for (name, vector), there in zip(vectors.items(), steered, strict=True):
        for k, tokens in enumerate(prompts):
            ids = torch.tensor([tokens])
            with torch.no_grad():
                base = network(ids).logits[0, -1]
                with lm.steered(vector):
                    here = (network(ids).logits[0, -1] - base).numpy()
            change = there[k] - plain[k]
            errors[name, k] = float(np.linalg.norm(change - here) / np.linalg.norm(here))
    assert all(error <= WITHIN for error in errors.values()), errors
