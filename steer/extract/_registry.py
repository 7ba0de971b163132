"""The registry of extraction methods: a method is one decorated function."""

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, TypeVar

from steer._registry import Registry
from steer.algebra import Vector
from steer.errors import RecordingError
from steer.extract._activations import Activations

Keep: TypeAlias = Literal["means", "pairs"]


class Method(Protocol):
    """From activations to a vector."""

    def __call__(self, activations: Activations, *, domain: str | None = None) -> Vector:
        """Return the vector of a domain."""


_METHODS: Registry[tuple[Method, Keep]] = Registry(
    "an extraction method", RecordingError, register="@method"
)
_M = TypeVar("_M", bound=Callable[..., Vector])


def method(name: str, *, keep: Keep = "means") -> Callable[[_M], _M]:
    """Register an extraction method under a name.

    Args:
        name: The name, as the command line takes it.
        keep: What `record` must keep for the method: `means`, or `pairs` if it reads single pairs.

    Returns:
        A decorator that returns the function unchanged. Running the definition again, as when a
        notebook cell is run twice, replaces the old function.

    Raises:
        RecordingError: The name is taken.
    """

    def register(function: _M) -> _M:
        _METHODS.add(name, (function, keep), function)
        return function

    return register


def methods() -> tuple[str, ...]:
    """Return the names of all extraction methods, sorted."""
    return _METHODS.names()


def get_method(name: str) -> Method:
    """Return an extraction method by its name.

    Args:
        name: One of `methods()`.

    Raises:
        RecordingError: There is no method of that name.
    """
    return _METHODS.get(name)[0]


def keep_for(name: str) -> Keep:
    """Return what `record` must keep for a method, as its argument `keep` takes it."""
    return _METHODS.get(name)[1]
