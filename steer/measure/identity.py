"""What tells a function from another of the same name: its code, its values, and what it calls.

A digest is taken of every part. Of functions and classes outside the installed packages these are
the compiled code and whatever it names, of values their numbers and texts, of other objects the
state that they would be copied with. Of what has no such state (a lock, a connection), and of
functions and classes of installed packages, only the name counts.
"""

import dis
import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import (
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steer.errors import SelectionError
from steer.fingerprint import weights_sample
from steer.model import Model
from steer.store.container import tensor_bytes

_PLACES = (
    str(Path(__file__).resolve().parents[1]),
    *(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
)
_INSTALLED = tuple(f"{place}{os.sep}" for place in _PLACES)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), range, torch.dtype)
_NO_STATE = (TypeError, ValueError, AttributeError, RuntimeError, LookupError, OSError, ImportError)
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")


def parts_of(function: Callable[..., Any]) -> dict[str, str]:
    """Return a digest of each part of what a function computes, by the part's name.

    Args:
        function: A function, a method, or an object that can be called; it is not called.

    Returns:
        The parts; none for a function of an installed package without values of its own.
    """
    reader = _Reader()
    try:
        reader.part("itself", function)
    except RecursionError as error:
        raise SelectionError(
            "what this function computes cannot be told from what another does",
            found="values nested too deeply, in its defaults, its object, or what it names",
            expected="values of some hundred levels",
            do="make them within the function, or leave save out",
        ) from error
    if len(reader.parts) == 1 and isinstance(function, FunctionType) and _installed(function):
        return {}
    return {**reader.parts, "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}


class _Reader:
    """Walks what a function is made of; each object is looked at once."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._named: dict[str, object] = {}
        self._known: dict[int, str] = {}
        self._above: list[int] = []
        self._kept: list[object] = []  # so that no two objects have one id

    def part(self, name: str, value: object) -> None:
        """Take a digest of a value under its name, numbered where another value has that name."""
        while name in self._named:
            if self._named[name] is value:
                return
            name += "'"
        self._named[name] = value
        self.parts[name] = _digest(self._token(value))

    def _token(self, value: Any) -> object:
        """Return lists of texts that are equal for equal values."""
        if isinstance(value, _PLAIN):
            return [type(value).__name__, repr(value)]
        if id(value) in self._above:
            return ["within", self._above[::-1].index(id(value))]
        if id(value) not in self._known:
            self._kept.append(value)
            self._above.append(id(value))
            self._known[id(value)] = _digest(self._content(value))
            self._above.pop()
        return self._known[id(value)]

    def _content(self, value: Any) -> object:
        if isinstance(value, Model):
            return ["model", repr(asdict(value.info)), weights_sample(value.hf_model)]
        if isinstance(value, nn.Module):
            return [self._token(type(value)), weights_sample(value)]
        if isinstance(value, Tensor | np.ndarray):
            return _numbers(value)
        if type(value) in (list, tuple):
            return [type(value).__name__, *map(self._token, value)]
        if type(value) in (set, frozenset):
            return ["set", *sorted(repr(self._token(item)) for item in value)]
        if type(value) in (dict, MappingProxyType):
            return ["dict", *([self._token(k), self._token(v)] for k, v in value.items())]
        return self._called(value)

    def _called(self, value: Any) -> object:
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return ["method", self._token(value.__func__), self._token(value.__self__)]
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self._token(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self._token, (value.fget, value.fset, value.fdel))]
        if hasattr(value, "__wrapped__"):
            return [self._token(type(value)), self._token(value.__wrapped__)]
        return self._object(value)

    def _function(self, function: FunctionType) -> object:
        values: list[object] = [function.__defaults__, function.__kwdefaults__]
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if cell != CellType():  # not yet set
                self.part(f"{function.__qualname__}: {name}", cell.cell_contents)
        named = f"{function.__module__}.{function.__qualname__}"
        if _installed(function):
            return ["function", named, self._token(values)]
        for name, value in _globals_of(function):
            self.part(f"{function.__module__}: {name}", value)
        return ["function", named, self._token(function.__code__), self._token(values)]

    def _code(self, code: CodeType) -> object:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        compiled = (code.co_code, code.co_exceptiontable)
        return ["code", repr((counts, names, compiled)), *map(self._token, code.co_consts)]

    def _class(self, kind: type) -> object:
        if _installed(kind):
            return _name(kind)
        own = {
            name: value
            for name, value in vars(kind).items()
            if isinstance(value, FunctionType) or not name.startswith("__")
        }
        bases = [self._token(base) for base in kind.__bases__]
        return ["class", _name(kind), bases, self._token(own)]

    def _object(self, value: Any) -> object:
        """Return an object's class and what it would be copied with."""
        kind = self._token(type(value))
        try:
            state = value.__reduce_ex__(4)
        except _NO_STATE:
            return [kind]
        if isinstance(state, str):
            return [kind, state]
        parts = [list(part) if isinstance(part, Iterator) else part for part in state]
        return [kind, *map(self._token, parts)]


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _numbers(value: "Tensor | np.ndarray[Any, Any]") -> object:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return ["array", repr(value.tolist())]
        data: Any = np.ascontiguousarray(value).tobytes()
    else:
        data = b"" if value.is_meta else tensor_bytes(value)
    return ["array", str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]


def _globals_of(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield what a function's code names outside of itself; of modules of the user what it uses."""
    for code in _codes(function.__code__):
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname not in _LOADS or name not in function.__globals__:
                continue
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, ModuleType) and not _installed(value):
                for inner in code.co_names:
                    if hasattr(value, inner):
                        yield f"{name}.{inner}", getattr(value, inner)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _installed(value: Any) -> bool:
    """Return whether a function, class or module belongs to this or another installed package."""
    if isinstance(value, FunctionType):
        place: str | None = value.__code__.co_filename
    else:
        module = value if isinstance(value, ModuleType) else _module_of(value)
        place = getattr(module, "__file__", None)
        if place is None:
            return module is not None and module.__name__ != "__main__"
    return place is not None and place.startswith(("<frozen", *_INSTALLED))


def _module_of(value: Any) -> ModuleType | None:
    kind = value if isinstance(value, type) else type(value)
    return sys.modules.get(kind.__module__)


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return the names of parts that are not the same.

    Args:
        ours: Parts of one function.
        theirs: Parts of another.
    """
    return sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n))
