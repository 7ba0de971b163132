"""What a configured engine gets in each worker; vLLM imports this module there by its name."""

from collections.abc import Sequence
from functools import wraps
from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker

from steer.errors import CapabilityError
from steer.serving import _v1, _v2
from steer.serving._bank import Bank, Entry
from steer.serving._blocks import TOKENS, attach, check_modules
from steer.serving._configuration import VERSIONS, Configuration
from steer.serving._folder import digest, read_folder, residuals, rows, weights

_KEY = "steer"


class WorkerCalls:
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
    asked = (getattr(parameters, "extra_args", None) or {}).get(_KEY)
    if asked is None:
        return []
    if not isinstance(asked, list):
        raise RuntimeError("steer: a request came to the worker unchecked; please report this")
    return [tuple(entry) for entry in asked]


def _steered(asked: Sequence[Entry], computed: int, count: int) -> int:
    """Return how many of a request's next tokens lie where one of its entries acts."""
    return (
        sum(
            any(first <= position < end for _, _, _, first, end in asked)
            for position in range(computed, computed + count)
        )
        if asked
        else 0
    )


def _state(worker: Any) -> _State:
    found = getattr(worker, "_steer_state", None)
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
    worker._steer_state = _State(bank)


def _wrap() -> None:
    load_model, execute_model = Worker.load_model, Worker.execute_model

    @wraps(load_model)
    def load(self: Any, *args: Any, **kwargs: Any) -> None:
        load_model(self, *args, **kwargs)
        _attach(self)

    @wraps(execute_model)
    def execute(self: Any, step: Any) -> Any:
        state = _state(self)
        expected = state.expected(step)
        state.bank.steered = {}
        result = execute_model(self, step)
        done = state.bank.steered
        if any(done.get(name, 0) != count for name, count in expected.items()):
            raise RuntimeError(
                "steer: a step of vLLM did not steer the tokens that its requests asked for: "
                f"expected {expected}, done {done}; please report this with your vLLM version"
            )
        return result

    Worker.load_model, Worker.execute_model = load, execute


_wrap()
