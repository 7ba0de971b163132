"""The hooks of one model, installed while something steers it and removed without a trace."""

import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from steer.engine._backward import Backward
from steer.engine._base import busy
from steer.engine._call import BatchSlice, Call, Prompts, check_rows, describe, prompts_of
from steer.engine._continuous import (
    refuse_continuous_batching,
    refuse_packed,
    refuse_running,
    stop_continuous_batching,
)
from steer.engine._markers import Marker, ends_of
from steer.engine._options import refuse_options, setting
from steer.engine._patches import StopForward, Uncopied, hook_stream, replace, unwrapped
from steer.engine._runtime import Generating, elsewhere, forget_compiled_code
from steer.engine._steering import Steering
from steer.engine._weights.merging import guard
from steer.errors import SteeringError
from steer.network import Architecture

_PAGED = "init_continuous_batching"  # what generate_batch and the paged cache begin with
_PREPARE = "prepare_inputs_for_generation"  # what `generate` calls before each forward
_LOCK = threading.Lock()
_INJECTORS: "weakref.WeakKeyDictionary[nn.Module, Injector]" = weakref.WeakKeyDictionary()


def injector_of(architecture: Architecture) -> "Injector":
    """Return the one injector of a model, made on first use."""
    model = unwrapped(architecture.model)
    with _LOCK:
        injector = _INJECTORS.get(model)
        if injector is None:
            injector = _INJECTORS[model] = Injector(model, architecture)
        return injector


class Injector:
    """The stack of active compositions of one model, and the hooks that apply them.

    Block hooks are in front of all others, so that `output_hidden_states` and later hooks see the
    steered stream. The top-level forward and `generate` are watched only if some composition must
    know the call.
    """

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        self._model = weakref.ref(model)
        self._body = weakref.ref(architecture.body)
        self._blocks = tuple(weakref.ref(block) for block in architecture.blocks)
        self._stack: list[Steering] = []
        self._installed: list[Steering] | None = []  # whose hooks are there; None in between
        self._restore: list[Callable[[], None]] = []
        self._owner: int | None = None
        self._under_way = threading.RLock()  # held by the thread whose call is under way
        self._caller: int | None = None
        self._call: Call | None = None
        self._prompts: Prompts | None = None
        self._announced = threading.local()  # the batch slice of this thread's next calls
        self._backward = Backward(lambda: self._stack)
        self._generating = Generating()

    @property
    def call(self) -> Call | None:
        """The call under way in this thread."""
        call = self._call
        return None if call is None or elsewhere(call.thread) else call

    @property
    def stack(self) -> tuple[Steering, ...]:
        """The active compositions, in the order of entry."""
        return tuple(self._stack)

    @property
    def likes(self) -> dict[int, Tensor]:
        """A weight of each block, which has the dtype and the device of its residual stream."""
        blocks = [block for ref in self._blocks if (block := ref()) is not None]
        found = [next(filter(Tensor.is_floating_point, b.parameters()), None) for b in blocks]
        found = [found[0], *found]  # of layer -1 too
        return {k - 1: w for k, w in enumerate(found) if w is not None and not w.is_meta}

    def seen(self) -> Call | None:
        """Return the call under way, of which a hook or a displaced module sees a part."""
        self._backward.note_checkpoint()
        return self.call

    @property
    def markers(self) -> dict[str, Marker]:
        """The markers of the active compositions' scopes, by their text."""
        return {text: m for steering in self._stack for text, m in steering.markers.items()}

    def enter(self, steering: Steering) -> None:
        """Start injecting a composition."""
        _check_markers(self.markers, steering.markers)
        self.check_batching(beginning=True)
        try:
            with _LOCK:
                self._check_owner()
                self._owner = threading.get_ident()
                self._stack.append(steering)
            self._install()
            forget_compiled_code()
        except BaseException:
            self.leave(steering)
            raise

    def leave(self, steering: Steering) -> None:
        """Stop injecting a composition; nothing happens if it is not active."""
        try:
            if steering in self._stack:
                self._generating.warn()
                if (model := self._model()) is not None:
                    stop_continuous_batching(model)
        finally:
            with _LOCK:
                if steering in self._stack:
                    self._stack.remove(steering)
            self.settle()

    def check_batching(self, *, beginning: bool = False) -> None:
        """Refuse to begin steering, or to change it, where continuous batching would mix both."""
        if (model := self._model()) is not None:
            refuse_running(model, beginning=beginning)

    def settle(self) -> None:
        """Make the hooks match the stack, should an interrupted call have left them otherwise."""
        if self._installed != self._stack:
            self._install()

    @contextmanager
    def batch_slice(self, rows: BatchSlice | None) -> Iterator[None]:
        """Announce that this thread's next calls cover a subset of a larger batch."""
        before = getattr(self._announced, "rows", None)
        self._announced.rows = rows
        try:
            yield
        finally:
            self._announced.rows = before

    @contextmanager
    def during_call(self, call: Call) -> Iterator[None]:
        """Announce a call, for forwards of inner modules.

        Raises:
            BusyModelError: Another thread's call of this model is under way.
        """
        taken, before = self._claim(), self._call
        self._call = call
        try:
            self._check_rows(call.batch_slice, call.rows)
            yield
        finally:
            self._call = before
            self._release(taken)

    @contextmanager
    def without_hooks(self, *, always: bool) -> Iterator[None]:
        """Remove the hooks for the duration of the context, in which the model is tried.

        If not `always`, one setting for all tokens stays, so that calls of other threads are
        steered throughout.
        """
        if always:
            self._check_owner()
        elif not any(steering.needs_call for steering in self._stack):
            yield
            return
        taken = self._claim()
        try:
            self._uninstall()
            yield
        finally:
            self._install()
            self._release(taken)

    def decide(self, run: Callable[[], object]) -> None:
        """Evaluate gates in extra forward passes where weights below the gate's layer are steered.

        In the pass of a gate neither its own composition acts nor those whose gates come after it.
        """
        call = self.call
        if call is None:
            return
        ahead = [s for s in self._stack if s.reads_ahead and s not in call.gates]
        for k, steering in enumerate(ahead):
            self._call = reading = call.reading(steering, tuple(ahead[k:]))
            try:
                with suppress(StopForward):
                    run()
            finally:
                self._call = call
            call.gates[steering] = reading.gates[steering]

    def _check_owner(self) -> None:
        if self._stack and self._owner != threading.get_ident():
            raise busy("steered", self._owner)

    def _claim(self) -> bool:
        """Refuse a call during another thread's call; return whether `_release` must follow."""
        if torch.compiler.is_compiling():
            return False  # the compiler can trace neither a thread's identity nor a lock
        if not self._under_way.acquire(blocking=False):
            how = "called, while steered," if self._stack else "called"
            raise busy(how, self._caller, "one call at a time")
        self._caller = threading.get_ident()
        return True

    def _release(self, taken: bool) -> None:
        if taken:
            self._under_way.release()

    def _check_rows(self, of: BatchSlice | None, rows: int) -> None:
        for steering in self._stack:
            check_rows(steering.composition, rows if of is None else of.total)

    # -- hooks -----------------------------------------------------------------------------------

    def _install(self) -> None:
        """Make the hooks match the stack, also after an interruption."""
        try:
            self._put(self._stack)
        finally:
            if self._installed != self._stack:  # it was interrupted
                self._put(self._stack)

    def _put(self, stack: Sequence[Steering]) -> None:
        """Replace the installed hooks by those of some compositions."""
        self._uninstall()
        model, body, undo = self._model(), self._body(), self._restore.append
        blocks = [block for ref in self._blocks if (block := ref()) is not None]
        if stack and model is not None and body is not None:
            for steering in stack:
                for forward in steering.displaced:
                    forward.install(undo)
                guard(model, steering.merging.names, undo)
            for layer in sorted({layer for steering in stack for layer in steering.layers}):
                change = self._changing(layer, [s for s in stack if layer in s.layers])
                hook_stream(blocks, layer, change, undo, first=True)
            self._backward.hook(body, model, undo)
            self._watch(model, any(steering.needs_call for steering in stack))
        self._installed = list(stack)

    def _uninstall(self) -> None:
        self._installed = None
        while self._restore:
            self._restore[-1]()
            self._restore.pop()

    def _changing(
        self, layer: int, active: Sequence[Steering]
    ) -> Callable[[Tensor], Tensor | None]:
        def change(stream: Tensor) -> Tensor | None:
            h, call = stream, self.seen()
            for steering in active:
                h = steering.apply(layer, h, call)
            return None if h is stream else h

        return change

    def _watch(self, model: Any, needs_call: bool) -> None:
        """Watch the ways into the model, on the instance; without need only `generate`."""
        names = tuple(inspect.signature(type(model).forward).parameters)[1:]
        ways: dict[str, Callable[..., Any]] = {"generate": self._generating.run}
        if needs_call:
            ways = {
                "forward": functools.partial(self._forward, names),
                "generate": functools.partial(self._generate, weakref.proxy(model)),
                _PREPARE: self._prepare,
                _PAGED: refuse_continuous_batching,
            }
        for name, watched in ways.items():
            if hasattr(model, name):
                way = functools.partial(watched, getattr(model, name))
                functools.update_wrapper(way, getattr(model, name), updated=())
                replace(model, name, Uncopied(way), self._restore.append)

    def _forward(
        self, names: Sequence[str], forward: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        taken, before = self._claim(), self._call
        try:
            lengths = kwargs.pop("prompt_lengths", None)
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            prompts = self._prompts if lengths is None else None
            call = prompts.prepared(given) if prompts is not None else None
            if call is None:
                call = self._described(given, prompts, lengths)
            self._call = call
            if not call.ready:
                self.decide(lambda: forward(**call.prompt_arguments(given)))
            return forward(*args, **kwargs)
        finally:
            self._call = before
            self._release(taken)

    def _described(
        self, given: Mapping[str, Any], prompts: Prompts | None, lengths: object = None
    ) -> Call:
        """Describe a forward by its arguments."""
        call = describe(given, prompts, lengths)
        if prompts is None:
            refuse_packed(given)
            self._check_rows(None, call.rows)
        call.ends = ends_of(self.markers, call, given)
        return call

    def _generate(
        self, model: Any, generate: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        taken, before = self._claim(), self._prompts
        try:
            named = {**dict(zip(("inputs", "generation_config"), args, strict=False)), **kwargs}
            setting_of = functools.partial(setting, named, model.generation_config)
            refuse_options((s.composition for s in self._stack), setting_of)
            pad, eos = setting_of("pad_token_id"), setting_of("eos_token_id")
            rows = getattr(self._announced, "rows", None)
            self._prompts = prompts = prompts_of(named, pad, eos, rows)
            self._check_rows(rows, prompts.count)
            return self._generating.run(generate, *args, **kwargs)
        finally:
            self._prompts = before
            self._release(taken)

    def _prepare(
        self, prepare: Callable[..., Any], /, input_ids: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        prompts = self._prompts
        if prompts is not None:  # the text of each row, which beams exchange
            prompts.so_far = input_ids
        inputs = prepare(input_ids, *args, **kwargs)
        if prompts is not None and isinstance(inputs.get("input_ids"), Tensor):
            prompts.upcoming = call = self._described(inputs, prompts)
            device = inputs["input_ids"].device
            ready = [steering.ready(call, device) for steering in self._stack]
            call.ready = all(ready)
        return inputs


def _check_markers(known: Mapping[str, Marker], new: Mapping[str, Marker]) -> None:
    """Refuse a marker that another tokenizer is looking for."""
    for text, marker in new.items():
        if text in known and known[text].tokenizer is not marker.tokenizer:
            raise SteeringError(
                f"another tokenizer looks for the marker {text!r}",
                found="two Model objects around one model, with different tokenizers",
                expected="one tokenizer",
                do="make both with the same tokenizer object",
            )
