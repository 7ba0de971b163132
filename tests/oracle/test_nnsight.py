"""nnsight as an independent oracle: it reads and edits every family as this library does.

nnsight runs in a process of its own, once for all families: importing it changes built-in
objects and `Tensor.backward` for good, which would reach every later test of this process.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from steer import Model, compose
from tests.conformance.cases import close, far
from tests.oracle import questions
from tests.oracle.questions import IDS, NAMES, STEPS
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]
GREEDY = {
    "max_new_tokens": STEPS,
    "min_new_tokens": STEPS,
    "do_sample": False,
    "pad_token_id": 0,
    "attention_mask": torch.ones_like(IDS[:1]),
}
SETTINGS = {"one layer": questions.ONE, "all layers": questions.ALL}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    out = tmp_path_factory.mktemp("oracle") / "answers.safetensors"
    command = [sys.executable, "-m", "tests.oracle.nnsight_side", str(out), *FAMILIES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lm(family: str) -> Model:
    return Model(tiny_model(family), tiny_tokenizer())


def streams(lm: Model, ids: Tensor) -> Tensor:
    """What the library's engine captures at every block, `[layer, pos, d_model]`."""
    from steer.engine import Batch

    row = tuple(ids[0].tolist())
    layers = range(lm.n_layers)
    return lm.engine.forward(Batch((row,), (len(row),)), layers=layers, logits="none").residual[0]


def test_captures_equal_a_trace(lm: Model, family: str, oracle: dict[str, Tensor]) -> None:
    assert lm.architecture.names["blocks"] == NAMES[family]
    close(streams(lm, IDS[:1]), oracle[f"{family}: captured"])


@pytest.mark.parametrize("setting", SETTINGS)
def test_injection_equals_an_edit(
    lm: Model, family: str, setting: str, oracle: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        plain = lm.hf_model(IDS[:1]).logits
        with lm.steered(SETTINGS[setting]):
            logits = lm.hf_model(IDS[:1]).logits
            tokens = lm.hf_model.generate(IDS[:1], **GREEDY)[:, IDS.shape[1] :]
    close(logits, oracle[f"{family}: logits, {setting}"])
    assert torch.equal(tokens, oracle[f"{family}: tokens, {setting}"])
    far(logits, plain)


def test_what_is_captured_under_steering_is_what_the_next_block_reads(
    lm: Model, family: str, oracle: dict[str, Tensor]
) -> None:
    with lm.steered(questions.ONE):
        close(streams(lm, IDS[:1])[1], oracle[f"{family}: seen"][0])


def test_rows_equal_an_edit_per_invoke(lm: Model, family: str, oracle: dict[str, Tensor]) -> None:
    knobs = compose(a=questions.ROWS[0], b=questions.ROWS[1])
    with torch.no_grad(), lm.steered(knobs, [{"a": 1.0}, {"b": 1.0}]):
        close(lm.hf_model(IDS).logits, oracle[f"{family}: rows"])


def test_nnsight_did_not_come_into_this_process() -> None:
    assert "nnsight" not in sys.modules
    assert not hasattr(3, "save")
