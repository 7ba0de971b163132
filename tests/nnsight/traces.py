"""Steering inside nnsight traces. Run by test_nnsight.py in a process of its own.

Importing nnsight changes every object of a process, so nothing here is collected by itself.
"""

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steer import Dense, Model, Pair, Pairs, Vector, Weight, compose, neutral_text, record, view
from steer.algebra import register_operator
from steer.algebra._operator import ADD
from steer.errors import (
    ArchitectureError,
    ArgumentError,
    BusyModelError,
    CapabilityError,
    CompositionError,
    FitError,
    RowsError,
    ScopeError,
    SteerError,
    SteeringError,
)
from steer.harness import run_harness
from steer.tracing import TracedModel, apply, injection
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, close, far
from tests.nnsight.state import global_state
from tests.recurrent import tiny_recurrent
from tests.tiny import tiny_model, tiny_tokenizer

BEFORE = global_state()
import nnsight  # noqa: E402
from nnsight import TransformersModel  # noqa: E402

AFTER = global_state()
RESPONSES = ("Ask a doctor.", "The court can set it aside.", "No.", "The share, when it falls.")
IDS = torch.tensor(cases.sequences([(11, 0)]))
KNOBS = cases.knobs(layers=[(0, 1), (1, 3), (2,)])
MIXED = cases.knobs(
    ["add", "ablate", "add"], ["response", "all[3:]", "last_prompt"], [(-1, 1), (1, 3), (2,)]
)
ROWS = [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}]


@pytest.fixture(scope="module")
def plain() -> Model:
    """The same model on the library's own engine, beside which everything is held."""
    return Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def language_model() -> Any:
    return TransformersModel(
        tiny_model("llama"), tokenizer=tiny_tokenizer(), task="text-generation"
    )


@pytest.fixture(scope="module")
def lm(language_model: Any) -> TracedModel:
    return TracedModel(language_model, tiny_tokenizer())


# -- what an import changes ------------------------------------------------------------------------


def test_importing_this_library_does_not_import_nnsight() -> None:
    assert BEFORE["nnsight imported"] is False


def test_what_an_import_of_nnsight_changes_is_what_the_page_says() -> None:
    changed = {name for name in BEFORE if BEFORE[name] != AFTER[name]}
    assert changed == {"nnsight imported", "object", "torch.Tensor"}
    assert AFTER["object"] - BEFORE["object"] == {"save"}
    different = {k for k, v in AFTER["torch.Tensor"].items() if BEFORE["torch.Tensor"].get(k) != v}
    assert different == {"backward"}
    page = (Path(__file__).parents[2] / "docs/howto/nnsight.md").read_text()
    for name in ("`.save`", "`Tensor.backward`", "`backtrace()`", "`forward`", "padding token"):
        assert name in page, name


# -- in a trace of one's own -----------------------------------------------------------------------


def logits_of(plain: Model, what: Any, *coefficients: Any) -> Tensor:
    with torch.no_grad(), plain.steered(what, *coefficients):
        logits: Tensor = plain.hf_model(IDS).logits
    return logits


def test_one_line_steers_a_trace_and_values_can_be_saved(
    language_model: Any, lm: TracedModel, plain: Model
) -> None:
    for model in (language_model, lm):
        with torch.no_grad(), language_model.trace(IDS):
            streams = nnsight.save(apply(KNOBS, model, 0.8))
            last = nnsight.save(language_model.model.layers[3].output)
            logits = nnsight.save(language_model.output.logits)
        close(logits, logits_of(plain, KNOBS, 0.8))
        assert sorted(streams) == [0, 1, 2, 3]
        close(streams[3], last)
    with torch.no_grad(), language_model.trace(IDS):
        unsteered = nnsight.save(language_model.output.logits)
    far(logits, unsteered)


def test_values_below_are_read_in_an_invoke_beside_it(language_model: Any, plain: Model) -> None:
    with torch.no_grad(), language_model.trace() as tracer:
        with tracer.invoke(IDS):
            apply(KNOBS, language_model, 0.8)
        with tracer.invoke():
            seen = nnsight.save(language_model.model.layers[1].input)
    batch = tuple(IDS[0].tolist())
    from steer.engine import Batch

    with plain.steered(KNOBS, 0.8):
        wanted = plain.engine.forward(Batch((batch,), (11,)), layers=[0], logits="none").residual
    close(seen[0], wanted[0][0])


def test_each_invoke_may_have_coefficients_of_its_own(language_model: Any, plain: Model) -> None:
    with torch.no_grad(), language_model.trace() as tracer:
        with tracer.invoke(IDS):
            apply(KNOBS, language_model, medical=1.0)
            first = nnsight.save(language_model.output.logits)
        with tracer.invoke(IDS):
            apply(KNOBS, language_model, legal=-1.0)
            second = nnsight.save(language_model.output.logits)
    close(first, logits_of(plain, KNOBS, {"medical": 1.0}))
    close(second, logits_of(plain, KNOBS, {"legal": -1.0}))


def test_rows_and_scopes_on_a_batch_that_nnsight_pads(language_model: Any, plain: Model) -> None:
    rows = cases.sequences([(5, 4), (9, 2)])
    with torch.no_grad(), language_model.trace(rows):
        apply(MIXED, language_model, ROWS[:2], prompt_lengths=[5, 9])
        logits = nnsight.save(language_model.output.logits)
    for r, row in enumerate(rows):
        with torch.no_grad(), plain.steered(MIXED, [ROWS[r]]):
            alone = plain.hf_model(torch.tensor([row]), prompt_lengths=[[5, 9][r]]).logits
        close(logits[r, -len(row) :], alone[0])


@pytest.mark.parametrize("scope", ["all", "response", "prompt", "all[3:13]"])
def test_one_line_steers_every_step_of_a_generation(
    language_model: Any, plain: Model, scope: str
) -> None:
    knobs = cases.knobs(scopes=[scope] * 3)
    options: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    with language_model.generate(IDS, **options, pad_token_id=0) as tracer:
        for _ in tracer.iter[:5]:
            apply(knobs, language_model, 2.0, prompt_lengths=[11])
        found = nnsight.save(tracer.result)
    with plain.steered(knobs, 2.0):
        wanted = plain.hf_model.generate(
            IDS, attention_mask=torch.ones_like(IDS), **options, pad_token_id=0
        )
    assert torch.equal(found, wanted)


def test_a_step_from_a_state_that_tells_no_length_is_refused() -> None:
    hf = tiny_recurrent("mamba")
    traced = TransformersModel(hf, tokenizer=tiny_tokenizer(), task="text-generation")
    knobs = cases.knobs(scopes=["response"] * 3)
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}

    def run() -> None:
        with traced.generate(IDS, **options) as tracer:
            for _ in tracer.iter[:3]:
                apply(knobs, traced, 2.0, prompt_lengths=[11])

    with pytest.raises(CapabilityError, match="cache_params of type"):
        run()


REFUSED: dict[str, tuple[type[SteerError], str, Any]] = {
    "weights": (
        CapabilityError,
        "does not displace weights",
        lambda m: apply(Vector({Weight("lm_head.weight"): Dense(torch.ones(128, 32))}), m),
    ),
    "marker": (
        CapabilityError,
        "after:</think>",
        lambda m: apply(cases.knobs(scopes=["after:</think>"] * 3), m, 1.0),
    ),
    "gate": (CapabilityError, "gate", lambda m: apply(KNOBS.gated(cases.gate(layer=0)), m, 1.0)),
    "scope": (ScopeError, "prompt_lengths", lambda m: apply(MIXED, m, 1.0)),
    "nothing": (CompositionError, "cannot be steered with", lambda m: apply(None, m)),  # type: ignore[arg-type]
    "model": (ArchitectureError, "nnsight runs", lambda _: apply(KNOBS, None, 1.0)),
    "plain model": (ArchitectureError, "nnsight runs", lambda m: injection(KNOBS, m._module, 1.0)),
    "lengths": (ArgumentError, "sequence", lambda m: apply(MIXED, m, prompt_lengths="ab")),  # type: ignore[arg-type]
    "fractions": (ArgumentError, "=5.5", lambda m: apply(MIXED, m, prompt_lengths=[5.5])),  # type: ignore[list-item]
    "negative": (ArgumentError, "=-1", lambda m: apply(MIXED, m, prompt_lengths=[-1])),
    "one length": (ArgumentError, "int 5", lambda m: apply(MIXED, m, prompt_lengths=5)),  # type: ignore[arg-type]
    "lengths for rows": (
        RowsError,
        "4 rows of coefficients, 1 lengths",
        lambda m: apply(MIXED, m, ROWS, prompt_lengths=[11]),
    ),
    "width": (FitError, "width 33", lambda m: apply(Vector.of({1: torch.ones(33)}), m)),
    "layer": (FitError, "layers up to 4", lambda m: apply(cases.vector(4), m)),
    "domain": (CompositionError, "medicine", lambda m: apply(KNOBS, m, medicine=1.0)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_one_line_cannot_do_is_refused_by_name(language_model: Any, name: str) -> None:
    kind, text, call = REFUSED[name]
    with pytest.raises(kind, match=text):
        call(language_model)


@pytest.mark.parametrize("rows", [ROWS[:2], ROWS[:3], ROWS[:1]])
def test_another_number_of_rows_than_the_trace_has_is_refused(
    language_model: Any, rows: list[dict[str, float]]
) -> None:
    ids = cases.sequences([(5, 4)] * 4)
    with (
        pytest.raises(RowsError, match=f"{len(rows)} for 4 rows of the trace"),
        torch.no_grad(),
        language_model.trace(ids),
    ):
        apply(KNOBS, language_model, rows)


def test_another_number_of_lengths_than_the_trace_has_rows_is_refused(language_model: Any) -> None:
    push = injection(MIXED, language_model, 1.0, prompt_lengths=[5])
    with (
        pytest.raises(RowsError, match="1 for 2 rows of the trace"),
        torch.no_grad(),
        language_model.trace(cases.sequences([(5, 4)] * 2)),
    ):
        push(language_model)


@pytest.mark.parametrize("wrong", [None, "gpt2"])
def test_what_nnsight_does_not_run_is_no_traced_model(wrong: Any) -> None:
    with pytest.raises(ArchitectureError, match="not a model that nnsight runs"):
        TracedModel(wrong)


# -- the engine, beyond the conformance suite ------------------------------------------------------


def test_nested_gates_are_decided_from_below(lm: TracedModel, plain: Model) -> None:
    means = torch.stack([row[0, -1] for row in plain.activations(PROMPTS[:3], layers=[1])])
    high = cases.knobs(layers=[(2, 3)] * 3, gate=cases.gate(layer=2, margin=3.0))
    low = cases.knobs(layers=[(1, 2)] * 3, gate=cases.gate(means))
    for outer, inner in ((high, low), (low, high)):
        with plain.steered(outer, 2.0), plain.steered(inner, 1.5):
            wanted = plain.logits(PROMPTS, RESPONSES)
        with lm.steered(outer, 2.0), lm.steered(inner, 1.5):
            for a, b in zip(lm.logits(PROMPTS, RESPONSES), wanted, strict=True):
                close(a, b)


def test_what_needs_more_than_a_trace_is_refused_by_name(lm: TracedModel) -> None:
    with pytest.raises(CapabilityError, match="recording works on the modules"):
        record(lm, [Pair("a", "b", "c")], progress=False)
    vector = next(iter(KNOBS.parts.values())).vector
    with pytest.raises(CapabilityError, match="recording works on the modules"):
        view.separation(lm, vector, Pairs.of([Pair("a", "b", "c")]), position="template[-1]")
    with pytest.raises(CapabilityError, match="a harness works on the modules"):
        run_harness(lm, None, ["harmless"])
    with pytest.raises(CapabilityError, match="lm_head"):
        lm.steered(Vector({Weight("lm_head.weight"): Dense(torch.ones(128, 32))})).attach()
    with lm.steered(MIXED, 1.0):
        for name, value in (("prompt_lookup_num_tokens", 2), ("prefill_chunk_size", 4)):
            with pytest.raises(CapabilityError, match=name):
                lm.generate(PROMPTS, max_new_tokens=2, **{name: value})
    with lm.steered(KNOBS, ROWS[:3]), pytest.raises(RowsError, match="3 rows for 4 prompts"):
        lm.logits(PROMPTS, RESPONSES)
    lm.hf_model.train()
    with pytest.raises(CapabilityError, match="training mode"):
        lm.generate(PROMPTS, max_new_tokens=2)
    lm.hf_model.eval()


def test_a_second_thread_is_refused(lm: TracedModel) -> None:
    found: list[type[BaseException]] = []

    def attempt() -> None:
        try:
            lm.steered(KNOBS, 1.0).attach()
        except BusyModelError as error:
            found.append(type(error))

    with lm.steered(KNOBS, 1.0):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert found == [BusyModelError]


# -- elsewhere -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def url(directory: Path) -> Iterator[str]:
    from nnsight.modeling.huggingface import _ID_CACHE

    _ID_CACHE[str(directory)] = "somebody/tiny"  # what the Hub would say
    command = [sys.executable, str(Path(__file__).with_name("server.py")), str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=directory
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnsight.schema.config.CONFIG.APP.REMOTE_LOGGING", False)
    monkeypatch.setattr("nnsight.schema.config.CONFIG.API.APIKEY", "a key")


def check_elsewhere(lm: TracedModel, plain: Model) -> None:
    gated = MIXED.gated(cases.gate(layer=-1, margin=0.5))
    for knobs, setting in ((MIXED, ROWS), (gated, 1.0)):
        with lm.steered(knobs, setting), plain.steered(knobs, setting):
            for a, b in zip(
                lm.logits(PROMPTS, RESPONSES), plain.logits(PROMPTS, RESPONSES), strict=True
            ):
                close(a, b)
            assert lm.generate(PROMPTS, max_new_tokens=5) == plain.generate(
                PROMPTS, max_new_tokens=5
            )
    with lm.steered(MIXED, ROWS), plain.steered(MIXED, ROWS):
        for a, b in zip(lm.activations(PROMPTS), plain.activations(PROMPTS), strict=True):
            close(a, b)


def test_a_rehearsal_on_this_machine_gives_the_same(language_model: Any, plain: Model) -> None:
    check_elsewhere(TracedModel(language_model, tiny_tokenizer(), remote="local"), plain)


def test_a_server_that_has_never_heard_of_this_library_gives_the_same(
    directory: Path, url: str, plain: Model, quiet: None
) -> None:
    lm = TracedModel.from_pretrained(directory, remote=url)
    assert all(p.is_meta for p in lm.hf_model.parameters())  # no weights came here
    assert lm.info == replace(plain.info, model_id=lm.info.model_id)
    check_elsewhere(lm, plain)
    with urllib.request.urlopen(f"{url}/requests") as answer:
        sent = json.loads(answer.read())
    assert len(sent) == 2 + 4 + 1  # a gate is read in a request of its own, before each call
    for request in sent:
        assert '"somebody/tiny"' in request["model_key"]
        assert request["ndif-api-key"] == "a key"
        assert request["bytes"] < 30_000
    assert all(p.is_meta for p in lm.hf_model.parameters())


def test_an_injection_travels_in_a_trace_of_ones_own(
    directory: Path, url: str, plain: Model, quiet: None
) -> None:
    own = tiny_tokenizer()
    model = TransformersModel(str(directory), task="text-generation", tokenizer=own)
    push = injection(KNOBS, model, 0.8)
    with model.trace(IDS, remote=url):
        streams = nnsight.save(push(model))
        logits = nnsight.save(model.output.logits)
    close(logits, logits_of(plain, KNOBS, 0.8))
    assert sorted(streams) == [0, 1, 2, 3]


def test_rows_that_do_not_match_are_refused_on_a_server_too(
    directory: Path, url: str, quiet: None
) -> None:
    model = TransformersModel(str(directory), task="text-generation", tokenizer=tiny_tokenizer())
    push = injection(KNOBS, model, ROWS[:2])
    with (
        pytest.raises(Exception, match="differ in number: 2 for 1 rows of the trace"),
        model.trace(IDS, remote=url),
    ):
        push(model)


def test_a_traced_model_that_is_steered_is_no_baseline(lm: TracedModel) -> None:
    with lm.steered(KNOBS, 0.5), pytest.raises(SteeringError, match="is being steered"):
        neutral_text(lm, PROMPTS, max_new_tokens=2)


def test_an_operator_that_cannot_be_sent_is_refused(plain: Model, language_model: Any) -> None:
    class Callable:
        def __call__(self, h: Tensor, prepared: tuple[Tensor, ...]) -> Tensor:
            return h + prepared[0]

    with contextlib.suppress(SteerError):
        register_operator(replace(ADD, name="callable", apply=Callable()))
    knobs = compose(v=cases.vector(1))
    with pytest.raises(CapabilityError, match="'callable' cannot be sent"):
        injection(replace(knobs, parts={"v": replace(knobs.parts["v"], operator="callable")}),
                  language_model, 1.0)  # fmt: skip


# -- steps in inference mode, and a model that is converted meanwhile ------------------------------


def test_attaching_in_inference_mode_and_updating_outside(lm: TracedModel) -> None:
    knobs = MIXED.gated(cases.gate(layer=-1, margin=9))
    with lm.steered(knobs, ROWS):
        expected = lm.logits(PROMPTS, RESPONSES)
    with torch.inference_mode():
        handle = lm.steered(knobs, ROWS[::-1]).attach()
        lm.logits(PROMPTS, RESPONSES)
    handle.update(ROWS)
    found = lm.logits(PROMPTS, RESPONSES)
    with torch.inference_mode():
        handle.remove()
    assert all(map(torch.equal, found, expected))


def test_after_a_dtype_detour_steering_equals_attaching_anew() -> None:
    hf = tiny_model("llama")
    model = TransformersModel(hf, tokenizer=tiny_tokenizer(), task="text-generation")
    lm = TracedModel(model, tiny_tokenizer())
    with lm.steered(MIXED, ROWS):
        for convert in (hf.half, hf.float):
            convert()
            found = lm.logits(PROMPTS, RESPONSES)
    with lm.steered(MIXED, ROWS):
        assert all(map(torch.equal, lm.logits(PROMPTS, RESPONSES), found))
