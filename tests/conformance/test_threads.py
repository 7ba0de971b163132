"""Contract 7 (in place): threads and models do not see each other; one thread steers a model."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from steer import Model, Pair, Pairs, record
from steer.errors import BusyModelError, RowsError, ScopeError
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, Snapshot, far
from tests.conformance.engines import EngineFactory

RESPONSES = ["No.", "Ask a doctor.", "Yes", "Sell"]
KNOBS = (
    cases.knobs(scopes=["all", "response", "last_prompt"], gate=cases.gate(layer=0, margin=9)),
    cases.knobs(["ablate", "add", "add"], ["prompt", "all", "all[3:]"]),
)
ROWS = ([{"medical": 1.0}, {}, {"legal": 1.0}, {"legal": -1.0}], [{"medical": 0.5}] * 4)


def work(lm: Any, k: int) -> tuple[list[torch.Tensor], list[str]]:
    with lm.steered(KNOBS[k], ROWS[k]):
        return lm.logits(PROMPTS, RESPONSES), lm.generate(PROMPTS, max_new_tokens=4)


def in_thread(task: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(task).result()


def wait(event: threading.Event | None) -> None:
    assert event is None or event.wait(timeout=60)


def test_two_threads_with_two_models_give_what_each_gives_alone(in_place: EngineFactory) -> None:
    models = [in_place.fresh(), in_place.fresh(seed=1)]
    serial = [work(lm, k) for k, lm in enumerate(models)]
    barrier = threading.Barrier(2)

    def repeatedly(k: int) -> list[Any]:
        barrier.wait(timeout=60)
        return [work(models[k], k) for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        found = [task.result() for task in [pool.submit(repeatedly, k) for k in (0, 1)]]
    for k, runs in enumerate(found):
        for logits, answers in runs:
            assert all(map(torch.equal, logits, serial[k][0]))
            assert answers == serial[k][1]


def test_steering_one_model_leaves_another_alone(in_place: EngineFactory) -> None:
    first, second = in_place.fresh(), in_place.fresh()
    plain, before = second.logits(PROMPTS, RESPONSES), Snapshot(second.hf_model)
    with first.steered(KNOBS[0], ROWS[0]):
        before.check(second.hf_model)
        assert all(map(torch.equal, second.logits(PROMPTS, RESPONSES), plain))
        with second.steered(KNOBS[1], ROWS[1]):
            both = first.logits(PROMPTS, RESPONSES), second.logits(PROMPTS, RESPONSES)
    assert all(map(torch.equal, both[0], work(first, 0)[0]))
    assert all(map(torch.equal, both[1], work(second, 1)[0]))
    far(torch.cat(both[0]), torch.cat(both[1]))


def test_a_second_thread_on_the_same_model_is_refused_and_works_afterwards(
    in_place: EngineFactory,
) -> None:
    lm = in_place.fresh()
    expected = work(lm, 0)

    def busy() -> None:
        with (
            pytest.raises(BusyModelError, match="another thread"),
            lm.steered(KNOBS[1], ROWS[1]),
        ):
            raise AssertionError("the body must not run")

    with lm.steered(KNOBS[0], ROWS[0]):
        during = lm.logits(PROMPTS, RESPONSES)
        in_thread(busy)
        assert all(map(torch.equal, lm.logits(PROMPTS, RESPONSES), during))
    assert in_thread(lambda: work(lm, 0))[1] == expected[1]
    assert work(lm, 0)[1] == expected[1]  # and the first thread again


def test_two_wrappers_of_one_model_are_one_model(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    again = in_place.wrap(lm.hf_model, lm.tokenizer)
    v, w = cases.vector(3, seed=1), cases.vector(3, seed=2)
    with lm.steered(v), lm.steered(v + w, operator="ablate"):
        expected = lm.logits(PROMPTS, RESPONSES)
    with lm.steered(v), again.steered(v + w, operator="ablate"):
        assert all(map(torch.equal, lm.logits(PROMPTS, RESPONSES), expected))
        assert all(map(torch.equal, again.logits(PROMPTS, RESPONSES), expected))

        def busy() -> None:
            with pytest.raises(BusyModelError):
                again.steered(v).attach()

        in_thread(busy)


def test_a_helper_thread_of_the_user_generates_steered(in_place: EngineFactory) -> None:
    """`TextIteratorStreamer` is used so: generate runs in a thread that did not enter."""
    lm = in_place.fresh()
    ids = torch.tensor([lm.tokenizer(PROMPTS[0])["input_ids"]])
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with lm.steered(KNOBS[0], ROWS[0][:1]):
        here = lm.hf_model.generate(ids, **options)
        there = in_thread(lambda: lm.hf_model.generate(ids, **options))
    assert torch.equal(here, there)


@pytest.mark.parametrize("way", ["forward", "generate", "engine"])
def test_two_calls_at_once_of_one_steered_model_are_refused(
    in_place: EngineFactory, way: str
) -> None:
    """A server's worker threads would otherwise take each other's prompts and rows."""
    lm = in_place.fresh()
    ids = torch.tensor(cases.sequences([(6, 0)]))
    calls = {
        "forward": lambda: lm.hf_model(ids, prompt_lengths=[6]),
        "generate": lambda: lm.hf_model.generate(ids, max_new_tokens=1, pad_token_id=0),
        "engine": lambda: lm.activations(PROMPTS[:1]),
    }
    met: list[None] = []

    def meet(*_: object) -> None:
        if not met:
            met.append(None)
            with pytest.raises(BusyModelError, match="called, while steered, by another thread"):
                in_thread(calls[way])

    handle = lm.architecture.blocks[2].register_forward_hook(meet)
    with lm.steered(KNOBS[0], ROWS[0][:1]):
        first = lm.activations(PROMPTS[:1])[0]
        assert met
        handle.remove()
        assert torch.equal(lm.activations(PROMPTS[:1])[0], first)
        in_thread(calls[way])  # one after the other they may come from any thread


def test_the_inner_model_called_by_another_thread_does_not_take_this_threads_call(
    in_place: EngineFactory,
) -> None:
    """Rows, scopes and gates of the call under way are not those of the other thread's text."""
    lm = in_place.fresh()
    body, ids = lm.architecture.body, torch.tensor(cases.sequences([(6, 0)]))
    met: list[None] = []

    def meet(*_: object) -> None:
        if not met:
            met.append(None)
            with pytest.raises(ScopeError, match="ran outside the model's own forward"):
                in_thread(lambda: body(input_ids=ids))

    handle = lm.architecture.blocks[0].register_forward_pre_hook(meet)
    with lm.steered(cases.knobs(), [{"medical": 1.0}]):
        first = lm.hf_model(ids).logits
        handle.remove()
        assert met
        assert torch.equal(lm.hf_model(ids).logits, first)


def test_parts_of_calls_in_several_threads_leave_nothing_behind(in_place: EngineFactory) -> None:
    """One thread's part begins before another's ends, and ends before it."""
    lm = in_place.fresh()
    ids = torch.tensor(cases.sequences([(6, 0)])).expand(2, -1)
    options = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 0, "output_logits": True}

    def of_both_rows() -> torch.Tensor:
        with lm.steered(cases.knobs(), [{"medical": 1.0}, {}]):
            out = lm.hf_model.generate(ids, return_dict_in_generate=True, **options)
        return out.logits[0]  # type: ignore[no-any-return]

    right = of_both_rows()
    far(right[0], right[1])
    steps = [threading.Event() for _ in range(3)]
    order = {
        "first": (None, steps[0], steps[1], steps[2]),
        "second": (steps[0], steps[1], steps[2], None),
    }

    def work(name: str) -> None:
        begin, begun, end, ended = order[name]
        wait(begin)

        def meet(*_: object) -> None:
            if threading.current_thread().name == name and begun and not begun.is_set():
                begun.set()
                wait(end)

        handle = lm.architecture.blocks[0].register_forward_pre_hook(meet)
        lm.generate(PROMPTS[:1] * 2, batch_size=1, max_new_tokens=1)
        handle.remove()
        if ended:
            ended.set()

    threads = [threading.Thread(target=work, args=(name,), name=name) for name in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert torch.equal(of_both_rows(), right)


def test_a_handle_may_be_removed_by_another_thread(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    before = Snapshot(lm.hf_model)
    handle = lm.steered(KNOBS[0]).attach()
    in_thread(handle.remove)
    before.check(lm.hf_model)


def test_the_model_itself_is_kept_and_not_copied(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    assert isinstance(lm, Model)
    before = Snapshot(lm.hf_model)
    assert in_place.wrap(lm.hf_model, lm.tokenizer).hf_model is lm.hf_model
    before.check(lm.hf_model)


@pytest.mark.parametrize("at", ["first", "last"])
def test_a_padded_recording_is_not_disturbed_by_a_call_of_another_thread(
    in_place: EngineFactory, at: str
) -> None:
    lm = in_place.fresh()
    pairs = Pairs.of([Pair("What is the dose?", "Ask a doctor.", "Take two.")])
    layers = [0, 2] if at == "first" else None

    def means() -> torch.Tensor:
        kept = record(lm, pairs, "response_mean", layers=layers, packing=False, progress=False)
        return kept.of().mean_chosen

    alone = means()
    met: list[None] = []

    def meet(*_: object) -> None:
        if not met:
            met.append(None)
            with pytest.raises(BusyModelError, match="recording activations"):
                in_thread(lambda: lm.hf_model(torch.tensor(cases.sequences([(6, 0)]))))

    block = lm.architecture.blocks[1 if at == "first" else 3]
    handle = block.register_forward_pre_hook(meet)
    try:
        assert torch.equal(means(), alone)
    finally:
        handle.remove()
    assert met


@pytest.mark.parametrize("read", ["logprobs", "activations"])
def test_what_is_read_of_a_call_is_not_that_of_another_threads_call(
    in_place: EngineFactory, read: str
) -> None:
    """The other call comes before the last that is read, and is left alone too."""
    lm = in_place.fresh()
    ids = torch.tensor(cases.sequences([(6, 0)]))
    calls: dict[str, Callable[[], list[torch.Tensor]]] = {
        "logprobs": lambda: lm.logprobs(PROMPTS, RESPONSES),
        "activations": lambda: lm.activations(PROMPTS),
    }
    alone, other = calls[read](), lm.hf_model(ids).logits
    met: list[torch.Tensor] = []

    def meet(*_: object) -> None:
        if threading.get_ident() == me and not met:
            met.append(in_thread(lambda: lm.hf_model(ids).logits))

    me = threading.get_ident()
    parts = {"logprobs": lm.architecture.final_norm, "activations": lm.architecture.blocks[-1]}
    handle = parts[read].register_forward_pre_hook(meet)
    try:
        found = calls[read]()
    finally:
        handle.remove()
    assert all(map(torch.equal, found, alone))
    assert torch.equal(met[0], other)


def test_two_unsteered_readings_at_once_are_refused_for_what_they_are(
    in_place: EngineFactory,
) -> None:
    lm = in_place.fresh()
    met: list[None] = []

    def meet(*_: object) -> None:
        if not met:
            met.append(None)
            with pytest.raises(BusyModelError, match="being called by another thread") as caught:
                in_thread(lambda: lm.activations(PROMPTS[:1]))
            assert "steered" not in str(caught.value).partition("to do")[0]

    handle = lm.architecture.blocks[2].register_forward_hook(meet)
    try:
        lm.activations(PROMPTS[:1])
    finally:
        handle.remove()
    assert met


def test_of_two_calls_that_begin_at_the_same_moment_one_is_refused(
    in_place: EngineFactory,
) -> None:
    """The second begins while the first one's arguments are looked at."""
    lm = in_place.fresh()
    ids = torch.tensor(cases.sequences([(9, 0)]))
    met: list[None] = []

    class Lengths(Sequence[int]):
        """Prompt lengths that take their time: another call begins meanwhile."""

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: Any) -> Any:
            if index:
                raise IndexError
            if not met:
                met.append(None)
                with pytest.raises(BusyModelError, match="called, while steered, by another"):
                    in_thread(lambda: lm.hf_model(ids[:, :6], prompt_lengths=[4]))
            return 9

    with lm.steered(KNOBS[1], 0.7):
        alone = lm.hf_model(ids, prompt_lengths=[9]).logits
        assert torch.equal(lm.hf_model(ids, prompt_lengths=Lengths()).logits, alone)
        assert met
        with pytest.raises(RowsError):
            lm.hf_model(ids, prompt_lengths=[1, 2])
        in_thread(lambda: lm.hf_model(ids, prompt_lengths=[9]))  # a refused call holds nothing
