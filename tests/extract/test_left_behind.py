import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from steer.algebra import Vector
from steer.engine._layout import unique_tokens
from steer.errors import BusyModelError, SteeringError
from steer.extract import record
from steer.extract._positions import plan
from steer.model import Model
from tests.extract.reference import EVERYWHERE, some_pairs, tiny


def everything(model: Model) -> dict[str, Any]:
    """Return all that recording must leave as it was, in a form that can be compared."""
    hf = model.hf_model
    modules = {
        name: (
            sorted(vars(module)),
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            module.training,
        )
        for name, module in hf.named_modules()
    }
    return {
        "modules": modules,
        "config": copy.deepcopy(hf.config.to_dict()),
        "attention": hf.config._attn_implementation,
        "generation": hf.generation_config.to_dict(),
        "weights": {k: v.clone() for k, v in hf.state_dict().items()},
        "tokenizer": (model.tokenizer.backend_tokenizer.to_str(), model.tokenizer.pad_token),
        "random": torch.get_rng_state(),
        "global": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
    }


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in ("modules", "config", "attention", "generation", "tokenizer", "global"):
        assert before[name] == after[name], name
    assert torch.equal(before["random"], after["random"])
    assert all(torch.equal(v, after["weights"][k]) for k, v in before["weights"].items())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "falcon"])
def test_nothing_is_left_behind(family: str) -> None:
    model = tiny(family)
    before = everything(model)
    record(model, some_pairs(), EVERYWHERE, progress=False)
    assert_unchanged(before, everything(model))


@pytest.mark.parametrize("packing", [None, False])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_nothing_is_left_behind_by_an_error(packing: bool | None, implementation: str) -> None:
    model = tiny()
    model.hf_model.set_attn_implementation(implementation)
    record(model, some_pairs(), EVERYWHERE, progress=False)  # the trial is done

    def fail(*_args: object) -> None:
        raise ZeroDivisionError

    handle = model.architecture.blocks[2].register_forward_hook(fail)
    before = everything(model)
    assert before["attention"] == implementation
    with pytest.raises(ZeroDivisionError):
        record(model, some_pairs(), EVERYWHERE, progress=False, packing=packing)
    assert_unchanged(before, everything(model))
    handle.remove()


def counted(model: Model) -> dict[str, list[int]]:
    """Return lists that fill with the number of tokens of each call of a part."""
    parts = {
        "embedding": model.architecture.embedding,
        "final_norm": model.architecture.final_norm,
        "unembedding": model.architecture.unembedding,
        **{f"block {i}": block for i, block in enumerate(model.architecture.blocks)},
    }
    calls: dict[str, list[int]] = {name: [] for name in parts}

    def counter(name: str) -> Any:
        def count(_module: object, _args: object, out: Any) -> None:
            stream: Tensor = out if isinstance(out, Tensor) else out[0]
            calls[name].append(stream.shape[0] * stream.shape[1])

        return count

    for name, part in parts.items():
        part.register_forward_hook(counter(name))
    return calls


@pytest.mark.parametrize("packing", [True, False])
def test_nothing_runs_after_the_last_layer_wanted(packing: bool) -> None:
    model = tiny()
    record(model, some_pairs(), progress=False)  # the trial is done
    calls = counted(model)
    record(model, some_pairs(), layers=[1], progress=False, packing=packing)
    assert calls["block 0"]
    assert calls["block 0"] == calls["block 1"] == calls["embedding"]
    for part in ("block 2", "block 3", "final_norm", "unembedding"):
        assert calls[part] == [], part
    record(model, some_pairs(), progress=False, packing=packing)
    assert calls["block 3"]
    assert calls["final_norm"] == calls["unembedding"] == []


def test_what_is_shared_is_computed_once() -> None:
    model, pairs = tiny(), some_pairs(12)
    record(model, pairs, EVERYWHERE, progress=False)  # the trial is done
    calls = counted(model)
    record(model, pairs, "response_mean", progress=False, max_tokens=1)
    _, units = plan(model.tokenizer, pairs, "response_mean")
    unique = [unique_tokens(unit.sequences) for unit in units]
    both = [sum(map(len, unit.sequences)) for unit in units]
    assert calls["embedding"] == unique, "one pack for each pair"
    assert sum(unique) < 0.75 * sum(both)
    calls["embedding"].clear()
    record(model, pairs, "response_mean", progress=False, max_tokens=10_000)
    assert len(calls["embedding"]) == 1
    assert calls["embedding"][0] <= sum(unique)


def test_one_forward_serves_all_positions_of_the_same_text() -> None:
    model, pairs = tiny(), some_pairs()
    record(model, pairs, EVERYWHERE, progress=False)
    calls = counted(model)
    record(model, pairs, "response_mean", progress=False)
    one = list(calls["embedding"])
    calls["embedding"].clear()
    record(model, pairs, EVERYWHERE[1:], progress=False)
    assert calls["embedding"] == one


def test_a_second_thread_cannot_use_the_model_meanwhile() -> None:
    model = tiny()
    record(model, some_pairs(), progress=False)
    raised: list[BaseException] = []

    def other() -> None:
        try:
            model.hf_model(input_ids=torch.tensor([[5, 6, 7]]))
        except BusyModelError as error:
            raised.append(error)

    def meanwhile(*_args: object) -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    handle = model.architecture.blocks[0].register_forward_hook(meanwhile)
    record(model, some_pairs(2), progress=False)
    handle.remove()
    assert raised
    model.hf_model(input_ids=torch.tensor([[5, 6, 7]]))


def test_two_models_can_be_recorded_at_once() -> None:
    models = [tiny(seed=seed) for seed in (0, 1)]
    alone = [record(model, some_pairs(), progress=False) for model in models]
    together: dict[int, Any] = {}
    threads = [
        threading.Thread(
            target=lambda i=i: together.update(
                {i: [record(models[i], some_pairs(), progress=False) for _ in range(3)]}
            )
        )
        for i in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        for found in together[i]:
            for key, moments in alone[i].moments.items():
                assert torch.equal(found.moments[key].difference, moments.difference)


def test_a_steered_model_is_refused() -> None:
    model = tiny()
    with (
        model.steered(Vector.of({1: torch.ones(32)}), 1.0),
        pytest.raises(SteeringError, match="being steered"),
    ):
        record(model, some_pairs(2), progress=False)
