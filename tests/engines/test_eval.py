"""Measuring through vLLM: the figures of `Model`, with every setting a request of one batch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steer import Part, Vector, compose, select, sweep
from steer.errors import ArgumentError, CapabilityError, RowsError
from steer.harness import run_harness
from steer.serving import VLLM
from tests.engines.server import ENVIRONMENT
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
from tests.harness import files

os.environ.update(ENVIRONMENT)
CLOSE = 1e-4  # nats


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def expected(
    llama: Path, vectors: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What `Model` says, from a process of its own: vLLM changes classes of transformers."""
    out = tmp_path_factory.mktemp("expected") / "found.json"
    command = [sys.executable, "-m", "tests.engines.reference_eval", llama, vectors, data, out]
    subprocess.run([str(part) for part in command], check=True)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def engine(llama: Path, vectors: Path) -> Iterator[VLLM]:
    sizes = {"max_model_len": 300, "max_num_batched_tokens": 128, "max_num_seqs": 16}
    with VLLM(llama, composition(vectors), dtype="float32", enforce_eager=True, **sizes) as started:
        yield started


@pytest.mark.parametrize("scope", SCOPES)
def test_answers_and_likelihoods_equal_those_of_the_model(
    engine: VLLM, vectors: Path, expected: Any, scope: str
) -> None:
    engine = engine.at(steered(composition(vectors), scope))
    assert engine.generate(PROMPTS, ROWS, max_new_tokens=12) == expected[f"generate {scope}"]
    for _ in range(2):  # the second time, prefixes are in the cache
        found = engine.logprobs(PROMPTS, RESPONSES, ROWS)
        for row, wanted in zip(found, expected[f"logprobs {scope}"], strict=True):
            assert row.tolist() == pytest.approx(wanted, abs=CLOSE)


def test_every_scope_does_something_of_its_own(expected: Any) -> None:
    said = [json.dumps(expected[f"logprobs {scope}"]) for scope in SCOPES]
    assert len(set(said)) == len(SCOPES)


def test_coefficients_are_the_composition_s_own_unless_given(engine: VLLM) -> None:
    own = engine.logprobs(PROMPTS[:2], RESPONSES[:2])
    ones = engine.logprobs(PROMPTS[:2], RESPONSES[:2], 1.0)
    none = engine.logprobs(PROMPTS[:2], RESPONSES[:2], 0.0)
    assert [row.tolist() for row in own] == [row.tolist() for row in ones]
    assert [row.tolist() for row in own] != [row.tolist() for row in none]


def test_what_the_engine_cannot_do_is_refused(engine: VLLM, vectors: Path) -> None:
    from vllm.exceptions import VLLMValidationError

    knobs = composition(vectors)
    other = Vector.of({1: knobs.parts["medical"].vector.direction(1) * 2})
    with pytest.raises(CapabilityError, match="other vectors"):
        engine.at(compose({"medical": other}))
    with pytest.raises(CapabilityError, match="other vectors"):
        engine.at(compose({"unknown": other}))
    with pytest.raises(CapabilityError, match="one scope"):
        engine.at({**knobs.parts, "medical": Part(knobs.parts["medical"].vector)})
    with pytest.raises(VLLMValidationError, match="prompt_length 9 of 3 tokens"):
        engine.complete([[11, 12, 13]], [{"coefficients": {"medical": 1.0}, "prompt_length": 9}])
    with pytest.raises(RowsError, match="3 rows for 2 prompts"):
        engine.generate(PROMPTS[:2], ROWS[:3])


def test_the_harness_gives_the_figures_of_the_model(
    engine: VLLM, vectors: Path, data: Path, expected: Any
) -> None:
    result = run_harness(engine, composition(vectors)(SETTING), TASKS, **harness(data))
    assert result.settings["engine"] == "vllm"
    assert len(result.rows) == len(expected["harness"])
    for row, wanted in zip(result.rows, expected["harness"], strict=True):
        assert row == {
            name: pytest.approx(value, abs=CLOSE) if isinstance(value, float) else value
            for name, value in wanted.items()
        }
    assert any(row["change"] for row in result.rows)
    assert any(row["metric"] == "margin" for row in result.rows)


def test_seeds_are_refused_where_they_would_end_the_engine(
    engine: VLLM, vectors: Path, data: Path
) -> None:
    drawn = {"samples": 3, "temperature": 1.0, "baseline": False, "limit": 2}
    with pytest.raises(CapabilityError, match="on a CPU cannot draw from a seed"):
        run_harness(engine, composition(vectors)(SETTING), "gsm8k", **drawn, **harness(data))
    assert len({*engine.generate([PROMPTS[0]] * 4, temperature=1.0, max_new_tokens=8)}) > 1


def test_a_sweep_gives_the_table_of_the_model(engine: VLLM, vectors: Path, expected: Any) -> None:
    knobs = composition(vectors)
    table = sweep(engine, knobs, pairs(), GRID, scope=BY_SCOPE, progress=False)
    assert table.way == "requests of one batch"
    assert len(table.rows) == len(expected["sweep"]) == 12
    for row, wanted in zip(table.rows, expected["sweep"], strict=True):
        assert row == {
            name: pytest.approx(value, abs=CLOSE) if isinstance(value, float) else value
            for name, value in wanted.items()
        }
    assert len({row["margin"] for row in table.rows}) > 6


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"layers": [1]}, "layers"),
        ({"measure": lambda model, data: {"x": 1.0}}, "measure"),
        ({"save": "sweep.db"}, "save"),
        ({"max_tokens": 100}, "max_tokens"),
    ],
)
def test_a_sweep_refuses_what_requests_cannot_do(
    engine: VLLM, vectors: Path, more: Any, told: str
) -> None:
    with pytest.raises(CapabilityError, match=told):
        sweep(engine, composition(vectors), pairs(), GRID, **more)


def test_select_refuses_the_engine_by_name(engine: VLLM, vectors: Path) -> None:
    with pytest.raises(ArgumentError, match="VLLM"):
        select(engine, composition(vectors), pairs())


def test_the_command_line_scores_with_vllm(llama: Path, vectors: Path, data: Path) -> None:
    command = [sys.executable, "-m", "steer", "eval", llama, "-v"]
    command += [f"{vectors / 'medical.safetensors'}:1.0", "--tasks", "persona:sober"]
    command += ["--data", data, "--json", "--quiet", "--dtype", "float32", "--engine"]
    found = {}
    for engine in ("vllm", "transformers"):
        lines = subprocess.check_output([*map(str, command), engine], text=True).splitlines()
        found[engine] = [json.loads(line) for line in lines]
    for row, wanted in zip(found["vllm"], found["transformers"], strict=True):
        for name, value in wanted.items():
            assert row[name] == (
                pytest.approx(value, abs=CLOSE) if isinstance(value, float) else value
            )
