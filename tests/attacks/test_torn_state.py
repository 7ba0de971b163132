"""A failure at any step of attaching, updating or removing, and inference mode on one side of it.

Failures are injected at every line of this library that such a call runs, and at every operation
of torch: whatever is interrupted, the model is steered as before or as after, never in between.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from linecache import getline
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import steer
from steer import Composition, Dense, DomainGate, Model, Vector, Weight
from tests.conformance import cases
from tests.conformance.cases import Snapshot, close, far, padded, same_bits
from tests.tiny import tiny_model, tiny_tokenizer
from tests.weights import everywhere

BATCH = padded(cases.sequences(), "right")
LENGTHS = [12, 5, 17, 8]
ROWS = [{"medical": 1.0}, {"legal": 0.5}, {}, {"financial": 0.8}]
DENSE = Vector({Weight("model.layers.1.mlp.up_proj.weight"): Dense(torch.ones(64, 32) / 8)})
MIXED = (["add", "ablate", "add"], ["response", "all", "prompt"])
_PACKAGE = str(Path(steer.__file__).parent)


class Injected(BaseException):
    """What is raised in the middle, as Ctrl-C would be."""


def _merged(lm: Model) -> Composition:
    medical, rest = Vector({**cases.vector(1, 2).terms, **DENSE.terms}), cases.vector(2, seed=5)
    return steer.compose(medical=medical, legal=rest, financial=rest)


SETTINGS: Mapping[str, tuple[Callable[[Model], Composition], Any, Any]] = MappingProxyType(
    {
        "residual": (lambda lm: cases.knobs(["add", "ablate", "add"]), 0.3, 0.7),
        "weights": (lambda lm: cases.mixed(lm, "both"), 0.3, 0.0),
        "rows, scopes, gate": (
            lambda lm: cases.mixed(lm, "both", *MIXED, gate=cases.gate(layer=0, margin=2.0)),
            ROWS,
            ROWS[::-1],
        ),
        "merged": (_merged, 0.3, 0.7),
    }
)


def model() -> Model:
    return Model(tiny_model("llama"), tiny_tokenizer())


def logits(lm: Model, per_row: bool) -> Tensor:
    lengths = {"prompt_lengths": LENGTHS} if per_row else {}
    with torch.no_grad():
        return lm.hf_model(**BATCH, **lengths).logits  # type: ignore[no-any-return]


@contextmanager
def failing_line(number: int) -> Iterator[list[int]]:
    """Raise at the n-th line of this library that runs; count the lines.

    Lines that begin a `with` or a `try` are no steps: tracing could raise where no signal can,
    before a lock is released and before what is guarded begins.
    """
    seen = [0]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(_PACKAGE):
            return None
        guards = getline(path, frame.f_lineno).lstrip().startswith(("with ", "try:", "finally:"))
        if event == "line" and not guards:
            seen[0] += 1
            if seen[0] == number:
                sys.settrace(None)
                frame.f_trace = None
                raise Injected
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)


class _Failing(TorchDispatchMode):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.seen = number, [0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[0] += 1
        if self.seen[0] == self.number:
            raise Injected
        return func(*args, **(kwargs or {}))


@contextmanager
def failing_operation(number: int) -> Iterator[list[int]]:
    """Raise at the n-th operation of torch; count the operations."""
    with _Failing(number) as mode:
        yield mode.seen


Failing = Callable[[int], AbstractContextManager[list[int]]]
STEPS: Mapping[str, Failing] = MappingProxyType(
    {"lines": failing_line, "operations": failing_operation}
)


def interrupted(failing: Failing, number: int, call: Callable[[], object]) -> bool:
    """Call with a failure at one step; return whether there was such a step."""
    try:
        with failing(number):
            call()
    except Injected:
        return True
    return False


def steps_of(failing: Failing, call: Callable[[], object], most: int = 12) -> list[int]:
    """The numbers of the steps of a call, thinned out evenly, but for the last of them."""
    with failing(-1) as seen:
        call()
    steps = range(1, seen[0] + 1)
    return sorted({*steps[:: max(1, len(steps) // most)], *steps[-most:]})


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_an_update_that_fails_at_any_step_is_undone(setting: str, steps: str) -> None:
    make, first, second = SETTINGS[setting]
    lm, failing = model(), STEPS[steps]
    per_row, before = isinstance(first, list), Snapshot(lm.hf_model)
    outcomes = set()
    with lm.steered(make(lm), first) as handle:
        old, old_logits = handle.composition.coefficients, logits(lm, per_row)
        handle.update(second)
        new, new_logits = handle.composition.coefficients, logits(lm, per_row)
        far(new_logits, old_logits)
        handle.update(first)
        steps_there = steps_of(failing, lambda: handle.update(second), 40)
        handle.update(first)
        for number in steps_there:
            assert interrupted(failing, number, lambda: handle.update(second))
            now, found = handle.composition.coefficients, logits(lm, per_row)
            done = bool(torch.equal(now, new))
            outcomes.add(done)
            assert done or torch.equal(now, old)
            assert same_bits(found, new_logits if done else old_logits), number
            handle.update(first)
            assert same_bits(logits(lm, per_row), old_logits)
    assert False in outcomes
    assert steps == "lines" or outcomes == {False}  # the last line returns what is done
    before.check(lm.hf_model)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_attaching_that_fails_at_any_step_leaves_the_outer_alone(setting: str, steps: str) -> None:
    make, first, _ = SETTINGS[setting]
    lm, failing = model(), STEPS[steps]
    per_row, before = isinstance(first, list), Snapshot(lm.hf_model)
    knobs, outer = make(lm), cases.mixed(lm, "both")(0.25)
    with lm.steered(outer) as around:
        alone = logits(lm, False)
        handle = lm.steered(knobs, first)

        def attached() -> None:
            handle.attach()

        attached()  # what a model is asked once is known from here on
        both = logits(lm, per_row)
        handle.remove()
        steps_there = steps_of(failing, attached)
        handle.remove()
        for number in steps_there:
            assert interrupted(failing, number, attached)
            lost = [h for h in lm.steering if h.composition is not around.composition]
            if lost:  # it was attached when it failed, and is listed as such
                assert same_bits(logits(lm, per_row), both), number
                lost[0].remove()
            assert same_bits(logits(lm, False), alone), number
            handle = lm.steered(knobs, first)
    before.check(lm.hf_model)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_removing_that_fails_at_any_step_ends_with_the_model_restored(
    setting: str, steps: str
) -> None:
    make, first, _ = SETTINGS[setting]
    lm, failing = model(), STEPS[steps]
    before, knobs, outer = Snapshot(lm.hf_model), make(lm), cases.mixed(lm, "both")(0.25)
    with lm.steered(outer) as around:
        alone = logits(lm, False)
        lm.steered(knobs, first).attach().remove()
        for number in steps_of(failing, lm.steered(knobs, first).attach().remove):
            handle = lm.steered(knobs, first).attach()
            assert interrupted(failing, number, handle.remove)
            handle.remove()
            assert [h.composition for h in lm.steering] == [around.composition]
            assert same_bits(logits(lm, False), alone), number
    before.check(lm.hf_model)


# -- inference mode -----------------------------------------------------------------------------


@contextmanager
def plainly() -> Iterator[None]:
    yield


MODES = MappingProxyType({"inside": torch.inference_mode, "outside": plainly})


@pytest.mark.parametrize("removed", MODES)
@pytest.mark.parametrize("updated", MODES)
@pytest.mark.parametrize("called", MODES)
@pytest.mark.parametrize("attached", MODES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_any_step_in_inference_mode(
    setting: str, attached: str, called: str, updated: str, removed: str
) -> None:
    make, first, second = SETTINGS[setting]
    lm = model()
    per_row, before = isinstance(first, list), Snapshot(lm.hf_model)
    knobs = make(lm)
    with lm.steered(knobs, second):
        expected = logits(lm, per_row)
    with MODES[attached]():
        handle = lm.steered(knobs, first).attach()
    with MODES[called]():
        logits(lm, per_row)
    with MODES[updated]():
        handle.update(second)
    assert same_bits(logits(lm, per_row), expected)
    with torch.inference_mode():
        assert same_bits(logits(lm, per_row), expected)
    with MODES[removed]():
        handle.remove()
    before.check(lm.hf_model)


@pytest.mark.parametrize("setting", SETTINGS)
def test_vectors_gates_and_handles_made_in_inference_mode_can_be_trained_through(
    setting: str, tmp_path: Path
) -> None:
    make, first, _ = SETTINGS[setting]

    def gradient(inside: bool) -> Tensor:
        lm = model()
        with (torch.inference_mode if inside else plainly)():
            knobs = make(lm)
            for name, part in knobs.parts.items():
                part.vector.save(tmp_path / f"{name}.steer")
            parts = {
                name: steer.Part(Vector.load(tmp_path / f"{name}.steer"), p.operator, p.scope)
                for name, p in knobs.parts.items()
            }
            gate = knobs.gate
            if gate is not None:
                gate = DomainGate(gate.domains, gate.centroids.clone(), gate.layer, gate.margin)
            handle = lm.steered(steer.compose(parts, gate=gate), first).attach()
            logits(lm, isinstance(first, list))
        lengths = {"prompt_lengths": LENGTHS} if isinstance(first, list) else {}
        lm.hf_model(**BATCH, **lengths).logits.square().sum().backward()
        handle.remove()
        down: Any = lm.architecture.blocks[0].mlp
        return down.down_proj.weight.grad  # type: ignore[no-any-return]

    close(gradient(inside=True), gradient(inside=False), 1e-6)


def test_weights_merged_in_inference_mode_are_put_back(tmp_path: Path) -> None:
    lm = model()
    before, v = Snapshot(lm.hf_model), everywhere(lm.hf_model)
    with torch.inference_mode():
        handle = lm.steered(v, 0.5, weights="merge").attach()
    handle.update(0.25)
    far(logits(lm, False), logits(model(), False))
    with torch.inference_mode():
        handle.remove()
    before.check(lm.hf_model)
