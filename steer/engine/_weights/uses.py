"""Where a model uses its parameters: observed in one small forward, never guessed from names."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steer.engine._patches import Uncopied, replace, unwrapped
from steer.engine._runtime import tensors_in
from steer.network import Architecture
from steer.network._architecture.probe import evaluating, probe_ids, same_random_state, uncompiled

Form = Literal["linear", "transposed", "lookup", "elementwise", "added"]  # see `forms`
ROWS, LENGTH = 3, 11  # unlike each other and any usual number of heads
_RECENT = 8  # inputs remembered while others go by
_LOCK = threading.Lock()
_USES: "weakref.WeakKeyDictionary[nn.Module, Uses]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """The first call of one module."""

    layer: int  # the block that it ran in: -1 before the first, `n_layers` after the last
    reader: int  # the same for modules that read the very same tensor
    shape: tuple[int, ...] | None  # of its floating-point input, if there is exactly one
    dtype: torch.dtype | None  # of that input
    output: tuple[int, ...] | None  # shape of its output, if that is one tensor
    # its arguments, if they hold no more numbers than there are tokens
    indices: tuple[tuple[Any, ...], dict[str, Any]] | None

    @property
    def position(self) -> int:
        """The dimension of the output that counts tokens, where rows and tokens are apart."""
        shape = self.output or ()
        return 2 if len(shape) > 3 and shape[1] != LENGTH and shape[2] == LENGTH else 1


@dataclass(frozen=True, eq=False, slots=True)
class Uses:
    """How a model used its parameters in one small forward."""

    seen: Mapping[str, Seen]  # the first call of each module that ran, by name
    outside: frozenset[str]  # parameters that code outside their own module used
    modules: tuple[int, ...]  # identities of the modules, to notice another structure
    # forms found since, by module name and the parameter's own name
    forms: dict[tuple[str, str], Form | None] = field(default_factory=dict)


def uses_of(architecture: Architecture) -> Uses:
    """Return where a model uses its parameters; the model runs once, on 33 tokens."""
    model = unwrapped(architecture.model)
    modules = tuple(map(id, model.modules()))
    with _LOCK:
        known = _USES.get(model)
    if known is None or known.modules != modules:
        known = _watched(architecture, modules)
        with _LOCK:
            _USES[model] = known
    return known


def owners(model: nn.Module) -> dict[str, list[tuple[str, str]]]:
    """Return the modules that hold each parameter: several where it is tied."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, list[tuple[str, str]]] = {}
    for name, module in model.named_modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                found.setdefault(names[id(parameter)], []).append((name, leaf))
    return found


class _Watch(TorchFunctionMode):
    """Notes which module is running, and which parameters other modules use."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.kept = list(model.parameters())  # offloading replaces them meanwhile
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.own = {m: {id(p) for p in m._parameters.values()} for m in model.modules()}
        self.running: list[nn.Module] = []
        self.seen: dict[str, Seen] = {}
        self.outside: set[str] = set()
        self.layer = -1
        self._readers = 0
        self._recent: deque[tuple[Tensor, int, int]] = deque(maxlen=_RECENT)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if next(tensors_in(result), None) is not None:
            own = self.own[self.running[-1]] if self.running else set()
            for used in tensors_in((args, kwargs)):
                if id(used) in self.names and id(used) not in own:
                    self.outside.add(self.names[id(used)])
        return result

    def watched(self, name: str, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.running.append(module)
            try:
                output = forward(*args, **kwargs)
            finally:
                self.running.pop()
            if name not in self.seen:
                self.seen[name] = self._describe(args, kwargs, output)
            return output

        return watched

    def _describe(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Seen:
        floats = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        one = floats[0] if len(floats) == 1 else None
        small = sum(t.numel() for t in tensors_in((args, kwargs))) <= 2 * ROWS * LENGTH
        return Seen(
            self.layer,
            self._reader(one),
            None if one is None else tuple(one.shape),
            None if one is None else one.dtype,
            tuple(output.shape) if isinstance(output, Tensor) else None,
            (args, kwargs) if small else None,
        )

    def _reader(self, tensor: Tensor | None) -> int:
        for recent, version, reader in self._recent:
            if recent is tensor and recent._version == version:
                return reader
        self._readers += 1
        if tensor is not None:
            self._recent.append((tensor, tensor._version, self._readers))
        return self._readers


def _watched(architecture: Architecture, modules: tuple[int, ...]) -> Uses:
    model: Any = unwrapped(architecture.model)
    ids = probe_ids(model.config, architecture.embedding, architecture.vocab)
    watch = _Watch(model)

    def entered(layer: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            watch.layer = layer

        return hook

    with ExitStack() as stack:
        for layer, block in enumerate(architecture.blocks):
            stack.callback(block.register_forward_pre_hook(entered(layer)).remove)
        last = architecture.blocks[-1].register_forward_hook(entered(architecture.n_layers))
        stack.callback(last.remove)
        for name, module in model.named_modules():
            if name:
                patch = Uncopied(watch.watched(name, module))
                replace(module, "forward", patch, stack.callback)
        stack.enter_context(torch.inference_mode(False))  # versions of tensors are counted
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(model))
        stack.enter_context(uncompiled())
        stack.enter_context(same_random_state(model))
        with watch:
            model(input_ids=ids[:1, :1].repeat(ROWS, LENGTH), use_cache=False)
    return Uses(watch.seen, frozenset(watch.outside), modules)
