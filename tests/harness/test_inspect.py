"""Inspect runs a task on a steered model, which it loads by name through the entry point."""

import json
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

import steer
from steer.demo import MODEL_PATH, load_model, vectors_path
from steer.errors import ArgumentError, CapabilityError, CompositionError
from tests.harness.inspecting import INSPECTS_OWN, inspecting
from tests.repository.blocks import ROOT
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = INSPECTS_OWN
pytest.importorskip("inspect_ai", reason="the extra 'inspect' is not installed")

VECTOR = vectors_path() / "medical.safetensors"
QUESTIONS = ("What should I do about a cough?", "I have a fever.")


@pytest.fixture(autouse=True)
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load the module that `pyproject.toml` names, as Inspect does."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for name, value in declared["inspect_ai"].items():
        EntryPoint(name, value, "inspect_ai").load()
    with inspecting(tmp_path, monkeypatch):
        yield
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "logs", "data.jsonl"}


def model(path: Path = MODEL_PATH, **arguments: Any) -> Any:
    from inspect_ai.model import get_model

    return get_model(f"steer/{path}", memoize=False, **arguments)


def answers(tmp_path: Path, used: Any, **config: Any) -> list[Any]:
    """Run a task that is read from a file, and return its samples."""
    from inspect_ai import Task
    from inspect_ai import eval as run_tasks
    from inspect_ai.dataset import json_dataset
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    rows = [{"input": question, "target": "doctor"} for question in QUESTIONS]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task(dataset=json_dataset(str(data)), solver=generate(), scorer=includes())
    (log,) = run_tasks(task, model=used, display="none", log_dir=str(tmp_path / "logs"), **config)
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value is not None
    return sorted(log.samples, key=lambda sample: sample.id)


def wanted(coefficient: float, **options: Any) -> list[str]:
    """Return the library's own answers."""
    lm = load_model()
    with lm.steered(steer.Vector.load(VECTOR), coefficient):
        return [lm.generate(question, **options) for question in QUESTIONS]


def test_a_task_on_a_steered_model_has_the_answers_of_that_model(tmp_path: Path) -> None:
    used = model(vector=str(VECTOR), coefficients=1.5)
    samples = answers(tmp_path, used, max_tokens=12)
    found = [sample.output.completion for sample in samples]
    assert found == wanted(1.5, max_new_tokens=12)
    assert found != wanted(0.0, max_new_tokens=12)
    tokenizer = used.api.model.tokenizer
    for sample in samples:
        usage = sample.output.usage
        said = len(tokenizer(sample.output.completion, add_special_tokens=False)["input_ids"])
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        assert said <= usage.output_tokens <= 12
        assert sample.output.stop_reason == ("max_tokens" if said == 12 else "stop")


def test_coefficients_are_a_number_a_mapping_or_what_the_file_recommends() -> None:
    legal = vectors_path() / "legal.safetensors"
    single, tuned = model(vector=str(VECTOR), coefficients=0.5), model(vector=VECTOR)
    several = model(vector=[str(VECTOR), str(legal)], coefficients={"medical": 0.5, "legal": -1})
    twice = model(vector=[str(VECTOR), str(VECTOR)], coefficients=[0.25, 0.25])
    assert single.api.composition.coefficients.tolist() == [[0.5]]
    assert several.api.composition.coefficients.tolist() == [[0.5, -1.0]]
    assert len(twice.api.composition.parts) == 2
    stored = steer.Vector.load(VECTOR).tuning
    recommended = 1.0 if stored is None else stored.coefficient
    assert tuned.api.composition.coefficients.tolist() == [[pytest.approx(recommended)]]
    knobs = steer.compose({"medical": steer.Vector.load(VECTOR)})(0.75)
    assert model(vector=knobs).api.composition.coefficients.tolist() == [[0.75]]
    assert model().api.composition is None
    with pytest.raises(ArgumentError, match="coefficients need a vector"):
        model(coefficients=1.0)
    with pytest.raises(CompositionError):
        model(vector=str(VECTOR), coefficients={"nothing": 1.0})


def test_sampling_depends_on_the_seed_and_leaves_the_random_state(tmp_path: Path) -> None:
    used = model(vector=str(VECTOR), coefficients=0.5)
    before = torch.get_rng_state()
    options: dict[str, Any] = {"max_tokens": 10, "temperature": 1.5}
    once, again, other = (
        [s.output.completion for s in answers(tmp_path, used, seed=seed, **options)]
        for seed in (1, 1, 2)
    )
    assert once == again != other
    assert torch.equal(torch.get_rng_state(), before)
    epochs = answers(tmp_path, used, epochs=3, **options)
    drawn = {sample.output.completion for sample in epochs if sample.id == epochs[0].id}
    assert len(drawn) > 1


def test_stop_sequences_and_system_messages_reach_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "tiny"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    whole, stopped, told = (
        answers(tmp_path, model(folder), max_tokens=8, **options)[0].output
        for options in ({}, {"stop_seqs": ["t"]}, {"system_message": "Be brief."})
    )
    begin, stop, _ = whole.completion.partition("t")
    assert stop
    assert stopped.completion == begin + stop
    assert (whole.stop_reason, stopped.stop_reason) == ("max_tokens", "stop")
    assert told.usage.input_tokens > whole.usage.input_tokens


@pytest.mark.parametrize(
    ("config", "said"),
    [({"num_choices": 2}, "num_choices"), ({"logprobs": True}, "logprobs")],
)
def test_what_a_steered_model_does_not_do_is_refused_by_name(
    config: dict[str, Any], said: str
) -> None:
    import asyncio

    from inspect_ai.model import GenerateConfig

    with pytest.raises(CapabilityError, match=said):
        asyncio.run(model().generate("hello", config=GenerateConfig(**config)))
