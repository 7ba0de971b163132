"""lm-eval's numbers on a steered model are those of the model itself under that steering."""

import json
import math
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import steer
from steer.errors import (
    ArgumentError,
    CapabilityError,
    MissingExtraError,
    ScopeError,
    SteeringError,
)
from steer.harness import HarnessError, HarnessResult, run_harness
from tests.harness import files
from tests.registered import SCOPES
from tests.tiny import tiny_model, tiny_tokenizer

CHOICES = ["truthfulqa_mc1", "truthfulqa_mc2", "persona:sober", "harmless"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def knob() -> steer.Composition:
    generator = torch.Generator().manual_seed(0)
    vector = steer.Vector.of({1: torch.randn(32, generator=generator)})
    return steer.compose({"sober": vector})(2.0)


def run(
    lm: steer.Model, what: Any, tasks: Sequence[str], data: Path | None, **options: Any
) -> HarnessResult:
    return run_harness(lm, what, tasks, data=data, progress=False, **options)


def value(result: HarnessResult, task: str, metric: str) -> float:
    """Return a metric of the unsteered model."""
    (found,) = [r for r in result.rows if (r["task"], r["metric"]) == (task, metric)]
    return found["unsteered"]


def responses(result: HarnessResult, condition: Any, task: str) -> list[Any]:
    return [item["resps"] for item in result.items[condition][task]]


@pytest.mark.parametrize("scope", [*SCOPES, "all[5:30]"])
def test_likelihoods_are_those_of_the_steered_model(
    lm: steer.Model, knob: steer.Composition, data: Path, scope: str
) -> None:
    scoped = steer.compose(
        {
            "sober": steer.Part(
                knob.parts["sober"].vector,
                scope=steer.Scope(*([scope] if "[" not in scope else ["all", 5, 30])),
            )
        }
    )(2.0)
    result = run(lm, scoped, ["truthfulqa_mc1"], data, apply_chat_template=True)
    for item in result.items["steered"]["truthfulqa_mc1"]:
        document = item["doc"]
        prompts = [f"Question: {document['question']}\nAnswer:"] * 3
        with lm.steered(scoped):
            wanted = [float(v.sum()) for v in lm.logprobs(prompts, document["choices"])]
        found = [pair[0][0] for pair in item["resps"]]
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-4)
        assert item["acc"] == float(max(wanted) == wanted[0])


def test_a_rendered_template_gets_no_further_special_tokens(
    knob: steer.Composition, data: Path
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    lm = steer.Model(tiny_model("llama"), tokenizer)
    result = run(lm, knob, ["truthfulqa_mc1"], data, apply_chat_template=True, limit=1)
    (item,) = result.items["steered"]["truthfulqa_mc1"]
    prompts = [f"Question: {item['doc']['question']}\nAnswer:"] * 3
    with lm.steered(knob):
        wanted = [float(v.sum()) for v in lm.logprobs(prompts, item["doc"]["choices"])]
    assert [pair[0][0] for pair in item["resps"]] == pytest.approx(wanted, rel=1e-5)


def test_greedy_answers_are_those_of_the_steered_model(
    lm: steer.Model, knob: steer.Composition, data: Path
) -> None:
    result = run(lm, knob, ["gsm8k"], data, num_fewshot=0, max_new_tokens=6)
    for item in result.items["steered"]["gsm8k"]:
        prompt, options = item["arguments"][0]
        ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
        with lm.steered(knob):
            new = lm.hf_model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        wanted = lm.tokenizer.decode(new, skip_special_tokens=True)
        for stop in options["until"]:
            wanted = wanted.split(stop)[0]
        assert item["resps"] == [[wanted]]
    plain, steered = (responses(result, c, "gsm8k") for c in ("unsteered", "steered"))
    assert plain != steered


def test_coefficient_zero_gives_the_unsteered_results_bit_for_bit(
    lm: steer.Model, knob: steer.Composition, data: Path
) -> None:
    tasks = [*CHOICES, "gsm8k"]
    result = run(lm, knob(0.0), tasks, data, max_new_tokens=4)
    for task in tasks:
        assert responses(result, "steered", task) == responses(result, "unsteered", task)
    assert {row["change"] for row in result.rows} == {0.0}
    assert {row["change_stderr"] for row in result.rows} == {0.0}


def test_rows_hold_both_conditions_and_the_paired_change(
    lm: steer.Model, knob: steer.Composition, data: Path
) -> None:
    result = run(lm, knob, ["persona:sober"], data)
    margin = next(row for row in result.rows if row["metric"] == "margin")
    values = {
        condition: torch.tensor(
            [item["margin"] for item in result.items[condition]["persona:sober"]],
            dtype=torch.float64,
        )
        for condition in ("unsteered", "steered")
    }
    before, after = values["unsteered"], values["steered"]
    assert margin["n"] == 3
    assert margin["unsteered"] == pytest.approx(float(before.mean()))
    assert margin["steered_stderr"] == pytest.approx(float(after.std() / 3**0.5))
    assert margin["change"] == pytest.approx(float((after - before).mean()))
    assert margin["change_stderr"] == pytest.approx(float((after - before).std() / 3**0.5))
    assert list(result.to_pandas()["metric"]) == ["matching", "margin"]
    assert "sober × 2 (add, all)" in repr(result)
    assert "<table " in result._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"num_fewshot": -1}, "num_fewshot=-1"),
        ({"samples": 0}, "samples=0(.|\n)*at least 1"),
        ({"samples": 2}, "temperature=0"),
        ({"limit": 0}, "limit=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_numbers_out_of_range_are_refused(
    lm: steer.Model, data: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArgumentError, match=said):
        run(lm, None, ["persona:sober"], data, **options)


def test_one_task_may_be_named_and_one_item_has_no_spread(
    lm: steer.Model, knob: steer.Composition, data: Path
) -> None:
    result = run(lm, knob, "persona:sober", data, limit=1)
    (row, _) = result.rows
    assert (row["task"], row["n"]) == ("persona:sober", 1)
    assert math.isnan(row["unsteered_stderr"])
    assert math.isnan(row["change_stderr"])


def test_one_condition_alone(lm: steer.Model, knob: steer.Composition, data: Path) -> None:
    alone = run(lm, None, ["persona:sober"], data)
    assert list(alone.scores) == ["unsteered"]
    assert alone.rows[0]["steered"] is alone.rows[0]["change"] is None
    steered = run(lm, knob, ["persona:sober"], data, baseline=False)
    assert list(steered.scores) == ["steered"]


def test_results_and_items_are_saved(
    lm: steer.Model, knob: steer.Composition, data: Path, tmp_path: Path
) -> None:
    result = run(lm, knob, ["persona:sober", "harmless"], data, limit=2)
    folder = result.save(tmp_path / "new" / "folder")
    saved = json.loads((folder / "results.json").read_text())
    assert saved["settings"]["limit"] == 2
    assert saved["rows"][0]["steered"] == result.rows[0]["steered"]
    for condition in ("unsteered", "steered"):
        lines = (folder / condition / "persona_sober.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == result.items[condition]["persona:sober"]
        assert len(lines) == 2


def answered(monkeypatch: pytest.MonkeyPatch, answers: Sequence[str]) -> None:
    """Let the model generate given answers, in the order of the requests."""
    from lm_eval.models.huggingface import HFLM

    def generate(self: Any, requests: Sequence[Any], **_: Any) -> list[str]:
        return [answers[k % len(answers)] for k in range(len(requests))]

    monkeypatch.setattr(HFLM, "generate_until", generate)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that a harness would run in containers; those that return x + n pass."""
    sources: list[str] = []

    def run_programs(programs: Sequence[str]) -> list[dict[str, str]]:
        sources.extend(programs)
        right = ["return x + " in source for source in programs]
        return [{"outcome": "passed" if one else "failed", "error": ""} for one in right]

    monkeypatch.setattr("steer.harness._programs.run_programs", run_programs)
    monkeypatch.setattr("steer.harness._load.check_sandbox", lambda tasks: None)
    return sources


def test_programs_known_to_pass_pass(
    lm: steer.Model, data: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, [row["canonical_solution"] for row in files.HUMANEVAL])
    result = run(lm, None, ["humaneval"], data, allow_code_execution=True)
    assert value(result, "humaneval", "pass@1") == 1.0
    (entry,) = result.items["unsteered"]["humaneval"][1]["filtered_resps"][0]
    assert entry == {"program": ran[1], "outcome": "passed", "error": ""}
    answered(monkeypatch, ["```python\n" + row["code"] + "\n```" for row in files.MBPP[2:4]])
    right = run(lm, None, ["mbpp", "humaneval_chat"], data, allow_code_execution=True)
    assert value(right, "mbpp", "pass@1") == 1.0
    assert right.settings["sandbox"] == "docker"
    for source in ran[:3] + ran[3:5]:
        exec(source, {})


def test_pass_at_k_of_several_samples(
    lm: steer.Model, data: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, ["    return x + 0\n"] * 3 + ["    import sys; sys.exit(0)\n"] * 7)
    options: dict[str, Any] = {"limit": 1, "samples": 10, "temperature": 0.8}
    result = run(lm, None, ["humaneval"], data, allow_code_execution=True, **options)
    assert value(result, "humaneval", "pass@1") == pytest.approx(0.3)
    assert value(result, "humaneval", "pass@10") == 1.0
    assert len(ran) == 10


def test_worked_examples_come_from_the_training_problems(lm: steer.Model, data: Path) -> None:
    options: dict[str, Any] = {"num_fewshot": 2, "max_new_tokens": 1, "limit": 2}
    result = run(lm, None, ["gsm8k", "persona:sober"], data, **options)
    for item in result.items["unsteered"]["gsm8k"]:
        shown = item["arguments"][0][0]
        assert shown.count("Question:") == 3
        assert shown.endswith(f"Question: {item['doc']['question']}\nAnswer:")
        for row in files.GSM8K[:4]:
            assert (row["question"] in shown) == (row["question"] == item["doc"]["question"])
    assert result.settings["num_fewshot"] == {"gsm8k": 2, "persona:sober": 0}


def test_samples_depend_on_the_seed_alone_and_random_state_is_put_back(
    lm: steer.Model, data: Path
) -> None:
    before = random.getstate(), torch.get_rng_state()
    options: dict[str, Any] = {"samples": 2, "temperature": 1.5, "max_new_tokens": 5, "limit": 2}
    options["num_fewshot"] = 0
    once = run(lm, None, ["gsm8k"], data, **options)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        again = run(lm, None, ["gsm8k"], data, **options)
    other = run(lm, None, ["gsm8k"], data, seed=1, **options)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    first, second, third = (responses(r, "unsteered", "gsm8k") for r in (once, again, other))
    assert first == second != third
    assert {len(texts) for item in first for texts in item} == {2}


def test_nothing_is_fetched_and_the_model_is_left_as_it_was(
    lm: steer.Model, knob: steer.Composition, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refused)
    state = {name: value.clone() for name, value in lm.hf_model.state_dict().items()}
    run(lm, knob, CHOICES, data, limit=1)
    assert all(torch.equal(v, state[name]) for name, v in lm.hf_model.state_dict().items())
    assert lm.tokenizer.pad_token is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.hf_model.modules())


def own_task(folder: Path) -> str:
    (folder / "own.py").write_text(
        "from datasets import Dataset\n"
        "def load(**_): return {'test': Dataset.from_list([{'text': 'Ask a doctor.'}] * 2)}\n"
    )
    (folder / "own.yaml").write_text(
        "task: own\ncustom_dataset: !function own.load\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
        "metric_list:\n- {metric: bits_per_byte, aggregation: bits_per_byte, "
        "higher_is_better: false}\n"
    )
    return str(folder / "own.yaml")


def test_a_task_file_of_ones_own_and_texts_without_a_prompt(
    lm: steer.Model, knob: steer.Composition, tmp_path: Path
) -> None:
    task = own_task(tmp_path)
    result = run(lm, knob, [task], None)
    row = result.rows[0]
    assert (row["task"], row["metric"], row["n"]) == ("own", "bits_per_byte", 2)
    assert row["steered"] != row["unsteered"]
    vector = knob.parts["sober"].vector
    narrow = steer.compose({"sober": steer.Part(vector, scope=steer.Scope("response"))})
    with pytest.raises(ScopeError, match="no prompt"):
        run(lm, narrow, [task], None)


def test_long_contexts_lose_their_beginning(data: Path) -> None:
    short = steer.Model(tiny_model("llama", max_position_embeddings=24), tiny_tokenizer())
    result = run(short, None, ["persona:sober"], data)
    item = result.items["unsteered"]["persona:sober"][0]
    whole = short.tokenizer(item["arguments"][0][0] + " Yes")["input_ids"]
    answer = whole[len(short.tokenizer(item["arguments"][0][0])["input_ids"]) :]
    ids = torch.tensor([whole[-24:]])
    with torch.no_grad():
        logprobs = short.hf_model(ids).logits[0].log_softmax(-1)[:-1]
    n = len(answer)
    wanted = float(logprobs[-n:].gather(1, ids[0, -n:, None]).sum())
    assert item["resps"][0][0][0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["nothing"]}, r"no such task[\s\S]*gsm8k[\s\S]*persona:sober"),
        ({"tasks": []}, "no name"),
        ({"tasks": ["persona:mad"]}, "mad.jsonl"),
        ({"tasks": ["gsm8k", "humaneval"]}, r"humaneval[\s\S]*allow_code_execution"),
        ({"tasks": ["gsm8k"], "num_fewshot": 7}, "6 for num_fewshot=7"),
    ],
)
def test_what_cannot_be_run_is_refused(
    lm: steer.Model, data: Path, options: dict[str, Any], message: str
) -> None:
    tasks = options.pop("tasks")
    with pytest.raises(HarnessError, match=message):
        run(lm, None, tasks, data, **options)


def test_a_model_that_is_no_baseline_is_refused(
    lm: steer.Model, knob: steer.Composition, data: Path
) -> None:
    with lm.steered(knob), pytest.raises(SteeringError, match="being steered"):
        run(lm, knob, ["harmless"], data)
    lm.hf_model.train()
    try:
        with pytest.raises(HarnessError, match="training mode"):
            run(lm, knob, ["harmless"], data)
    finally:
        lm.hf_model.eval()
    with pytest.raises(CapabilityError, match="rows"):
        run(lm, knob(torch.tensor([[1.0], [2.0]])), ["harmless"], data)


def test_without_lm_eval_the_extra_is_named(
    lm: steer.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"residual-steer\[eval\]"):
        run(lm, None, ["gsm8k"], None)
