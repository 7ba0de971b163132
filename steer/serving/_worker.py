"""What a configured engine gets in each worker, where vLLM asks this module for `WorkerCalls`."""

from collections.abc import Sequence
from typing import Any

import torch

from steer.errors import CapabilityError
from steer.serving import _v1, _v2
from steer.serving._bank import Bank, Entry
from steer.serving._blocks import TOKENS, attach, check_modules
from steer.serving._configuration import VERSIONS, Configuration
from steer.serving._folder import digest, read_folder, residuals, rows, weights
from steer.serving._plugin import KEY, is_configured
from steer.serving._wrapping import wrap

_STATE = "_steer_state"  # the attribute of a worker


class _Calls:
    """The calls that a worker answers beside vLLM's own."""

    def steer_write(self, slot: int, content: str, data: dict[int, bytes]) -> None:
        """Put a vector, float32 values by layer, into a slot between two steps."""
        directions = {
            layer: torch.frombuffer(bytearray(values), dtype=torch.float32)
            for layer, values in data.items()
        }
        _state(self).bank.write(slot, content, directions)

    def steer_counts(self) -> dict[str, int]:
        """Return how many tokens of each request of the last step were steered."""
        return dict(_state(self).bank.steered)


class _State:
    """A worker's bank, and the settings of the requests that its scheduler told it of."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.asked: dict[str, Sequence[Entry]] = {}

    def expected(self, step: Any) -> dict[str, int]:
        """Return how many tokens of each request a step must steer, by the scheduler's account."""
        for name in step.finished_req_ids:
            self.asked.pop(name, None)
        computed = dict(
            zip(
                step.scheduled_cached_reqs.req_ids,
                step.scheduled_cached_reqs.num_computed_tokens,
                strict=True,
            )
        )
        for new in step.scheduled_new_reqs:
            self.asked[new.req_id] = entries(new.sampling_params)
            computed[new.req_id] = new.num_computed_tokens
        return {
            name: _steered(self.asked.get(name, ()), computed[name], count)
            for name, count in step.num_scheduled_tokens.items()
        }


def entries(parameters: Any) -> list[Entry]:
    """Return what a request's sampling parameters ask for, as its engine resolved it."""
    asked = (getattr(parameters, "extra_args", None) or {}).get(KEY)
    if asked is None:
        return []
    if not isinstance(asked, list):
        raise RuntimeError("steer: a request came to the worker unchecked; please report this")
    return [tuple(entry) for entry in asked]


def _steered(asked: Sequence[Entry], computed: int, count: int) -> int:
    """Return how many of a request's next tokens lie where one of its entries acts."""
    covered, at, stop = 0, computed, computed + count
    for first, end in sorted((first, min(end, stop)) for _, _, _, first, end in asked):
        covered += max(0, end - max(first, at))
        at = max(at, end)
    return covered


def _state(worker: Any) -> _State:
    found = getattr(worker, _STATE, None)
    if found is None:
        raise RuntimeError("steer: this worker has no vectors")
    return found  # type: ignore[no-any-return]


def _attach(worker: Any) -> None:
    """Give a worker whose model was loaded its bank of vectors, and fill it at each step."""
    config, runner = worker.vllm_config, worker.model_runner
    own = Configuration.of(config)
    bank = Bank(
        own.layers,
        own.width,
        own.capacity,
        config.scheduler_config.max_num_batched_tokens,
        config.scheduler_config.max_num_seqs,
        runner.device,
    )
    parts = read_folder(own.vectors)
    for slot, part in enumerate(residuals(parts).values()):
        bank.write(slot, digest(part.vector), rows(part.vector))
    if config.lora_config is not None:  # no adapter while blocks are verified
        runner._set_active_loras((0,) * TOKENS, (0,) * TOKENS, set())
    check_modules(runner.get_model(), weights(parts))
    attach(runner.get_model(), config, bank)
    if hasattr(runner, "model_state"):
        _v2.follow(runner, bank, entries)
    elif hasattr(runner, "_prepare_inputs") and hasattr(runner, "input_batch"):
        _v1.follow(runner, bank, entries)
    else:
        raise CapabilityError(
            "this model runner of vLLM cannot be steered",
            found=type(runner).__name__,
            expected=f"a runner of vLLM {', '.join(VERSIONS)}",
            do="install a version that was tested",
        )
    setattr(worker, _STATE, _State(bank))


def _load_model(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Attach the vectors once the model is there."""
    original(self, *args, **kwargs)
    if is_configured(self.vllm_config):
        _attach(self)


def _execute_model(original: Any, self: Any, step: Any) -> Any:
    """Compare what a step steered with what its requests asked for."""
    state = getattr(self, _STATE, None)
    if state is None:
        return original(self, step)
    expected = state.expected(step)
    state.bank.steered = {}
    result = original(self, step)
    done = state.bank.steered
    if any(done.get(name, 0) != count for name, count in expected.items()):
        raise RuntimeError(
            "steer: a step of vLLM did not steer the tokens that its requests asked for: "
            f"expected {expected}, done {done}; please report this with your vLLM version"
        )
    return result


def __getattr__(name: str) -> object:
    """Return the calls of a worker, whose class is wrapped by then."""
    if name != "WorkerCalls":
        raise AttributeError(name)
    from vllm.v1.worker.gpu_worker import Worker

    wrap(Worker, "load_model", _load_model)
    wrap(Worker, "execute_model", _execute_model)
    return _Calls
