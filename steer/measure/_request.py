"""The fingerprint of a sweep's request, so that only the same request resumes a saved sweep.

It covers everything that the numbers depend on: a model's configuration, tokenizer, template and a
sample of its weights; the code and values of the user's functions and of whatever they name.
Objects count by the state that they would be copied with, those without (a lock, a connection) by
their class, and what installed packages define by its name.
"""

import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from steer.algebra import Composition
from steer.measure._data import Answers, Measure
from steer.measure._grid import Setting
from steer.model import Model
from steer.network._fingerprint import weights_sample
from steer.pairs import Pairs
from steer.store._container import tensor_bytes

_PLACES = (
    str(Path(__file__).resolve().parents[1]),
    *(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(*site.getsitepackages(), site.getusersitepackages()),
)
_INSTALLED = ("<frozen", *(f"{place}{os.sep}" for place in _PLACES))
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), range, torch.dtype)
_NO_STATE = (TypeError, ValueError, AttributeError, RuntimeError, LookupError, OSError, ImportError)
_CODE = (
    *("argcount", "posonlyargcount", "kwonlyargcount", "flags", "code", "exceptiontable"),
    *("names", "varnames", "freevars", "cellvars"),
)
_Token = Callable[[object], str]
_CONTENT: dict[type, Callable[[_Token, Any], Iterable[str]]] = {
    **dict.fromkeys((list, tuple), map),
    **dict.fromkeys((set, frozenset), lambda token, value: sorted(map(token, value))),
    **dict.fromkeys((dict, MappingProxyType), lambda token, value: map(token, value.items())),
    MethodType: lambda token, value: [token(value.__func__), token(value.__self__)],
    ModuleType: lambda _, value: [value.__name__],
    property: lambda token, value: map(token, (value.fget, value.fset, value.fdel)),
    CodeType: lambda token, value: map(
        token, (value.co_consts, *(getattr(value, f"co_{name}") for name in _CODE))
    ),
}


def fingerprint(
    model: Model | str,
    composition: Composition,
    settings: Sequence[Setting],
    data: Mapping[str, Pairs | Answers],
    measure: Measure,
    reduce: str,
) -> str:
    """Return the SHA-256 of a sweep's request; the composition's coefficients are no part of it."""
    gate = composition.gate
    request = (
        model,
        [(n, p.operator, p.scope, dict(p.vector.terms)) for n, p in composition.parts.items()],
        gate and (gate.domains, gate.centroids, gate.layer, gate.margin),
        list(settings),
        [(n, p.fingerprint if isinstance(p, Pairs) else p) for n, p in data.items()],
        (measure_name(measure), parts_of(measure), reduce),
    )
    return _Reader().token(request)


def measure_name(measure: Measure) -> str:
    """Return a measure's name: for a function, where it is defined."""
    if isinstance(measure, str):
        return measure
    name = getattr(measure, "__qualname__", type(measure).__qualname__)
    return f"{getattr(measure, '__module__', '')}.{name}"


def parts_of(measure: Measure) -> dict[str, str]:
    """Return a digest of each part of what a function computes, by the part's name."""
    if isinstance(measure, str):
        return {}
    reader = _Reader()
    reader.part("itself", measure)
    return {**reader.parts, "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}


class _Reader:
    """Digests values by their content, each object once."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._named: dict[str, object] = {}
        self._known: dict[int, tuple[object, str]] = {}  # objects are kept: none reuses an id
        self._above: list[int] = []

    def part(self, name: str, value: object) -> None:
        """Take a digest of a value under its name, marked where another value has that name."""
        while self._named.setdefault(name, value) is not value:
            name += "'"
        self.parts[name] = self.token(value)[:16]

    def token(self, value: Any) -> str:
        """Return a text that is equal for equal values."""
        if isinstance(value, _PLAIN):
            return _digest(type(value).__name__, repr(value))
        if id(value) in self._above:
            return f"within {self._above[::-1].index(id(value))}"
        if id(value) not in self._known:
            self._above.append(id(value))
            self._known[id(value)] = value, _digest(*self._content(value))
            self._above.pop()
        return self._known[id(value)][1]

    def _content(self, value: Any) -> list[str]:
        kind = type(value)
        if kind in _CONTENT:
            return [kind.__name__, *_CONTENT[kind](self.token, value)]
        if isinstance(value, Model):
            return [repr(asdict(value.info)), weights_sample(value.hf_model)]
        if isinstance(value, nn.Module):
            return [self.token(kind), weights_sample(value)]
        if isinstance(value, Tensor):
            data = b"" if value.is_meta else tensor_bytes(value)
            return [f"{value.dtype} {list(value.shape)}", hashlib.sha256(data).hexdigest()]
        if isinstance(value, FunctionType):
            return self._function(value)
        return self._class(value) if isinstance(value, type) else self._object(value)

    def _function(self, function: FunctionType) -> list[str]:
        code, cells = function.__code__, function.__closure__ or ()
        for name, cell in zip(code.co_freevars, cells, strict=True):
            if cell != CellType():  # not yet set
                self.part(f"{function.__qualname__}: {name}", cell.cell_contents)
        values = self.token((function.__defaults__, function.__kwdefaults__))
        named = [f"{function.__module__}.{function.__qualname__}", values]
        if code.co_filename.startswith(_INSTALLED):
            return named
        names = sorted(_names(code))
        for name in filter(function.__globals__.__contains__, names):
            value, path = function.__globals__[name], f"{function.__module__}: {name}"
            self.part(path, value)
            if isinstance(value, ModuleType) and not _is_installed(value):
                for used in (n for n in names if hasattr(value, n)):
                    self.part(f"{path}.{used}", getattr(value, used))
        return [*named, self.token(code)]

    def _class(self, kind: type) -> list[str]:
        named = f"{kind.__module__}.{kind.__qualname__}"
        if _is_installed(sys.modules.get(kind.__module__)):
            return [named]
        own = {
            name: value
            for name, value in vars(kind).items()
            if isinstance(value, FunctionType) or not name.startswith("__")
        }
        return [named, *map(self.token, kind.__bases__), self.token(own)]

    def _object(self, value: Any) -> list[str]:
        """Return an object's class and what it wraps (as a cache does), or would be copied with."""
        kind = self.token(type(value))
        if hasattr(value, "__wrapped__"):
            return [kind, self.token(value.__wrapped__)]
        try:
            state = value.__reduce_ex__(4)
        except _NO_STATE:
            return [kind]
        state = [list(part) if isinstance(part, Iterator) else part for part in state]
        return [kind, *map(self.token, state)]


def _digest(*content: str) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()


def _names(code: CodeType) -> set[str]:
    """Return what code and the functions within it name."""
    inner = (_names(value) for value in code.co_consts if isinstance(value, CodeType))
    return {*code.co_names}.union(*inner)


def _is_installed(module: ModuleType | None) -> bool:
    """Return whether a module is of a package or built in, not of the user."""
    if module is None or module.__name__ == "__main__":
        return False
    place = getattr(module, "__file__", None)
    return place is None or place.startswith(_INSTALLED)
