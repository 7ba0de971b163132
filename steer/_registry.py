"""A registry: values by name, each registered with one line."""

from typing import Generic, TypeVar

from steer.errors import SteerError

_T = TypeVar("_T")


class Registry(Generic[_T]):
    """Values by name, of one kind.

    A name that is taken is refused, unless the same functions are defined anew, as when a notebook
    cell is run again.
    """

    def __init__(self, kind: str, error: type[SteerError], *, register: str) -> None:
        self._kind, self._error, self._register = kind, error, register
        self._values: dict[str, tuple[_T, object]] = {}

    def add(self, name: str, value: _T, *functions: object) -> None:
        """Register a value that is defined by some functions, or raise if the name is taken."""
        place = [
            getattr(function, attribute, function)
            for function in functions
            for attribute in ("__module__", "__qualname__")
        ]
        if name in self._values and self._values[name][1] != place:
            raise self._error(
                f"{self._kind} of this name exists already",
                found=name,
                expected=f"a name other than {', '.join(self._values)}",
                do="choose another name",
            )
        self._values[name] = value, place

    def find(self, name: str) -> _T | None:
        """Return the value of a name, or None."""
        known = isinstance(name, str) and name in self._values  # other kinds may have no hash
        return self._values[name][0] if known else None

    def get(self, name: str) -> _T:
        """Return the value of a name, or raise."""
        if (value := self.find(name)) is None:
            raise self.unknown(name, self.names())
        return value

    def unknown(self, name: object, known: tuple[str, ...]) -> SteerError:
        """Return the error for a name that is not registered."""
        return self._error(
            f"unknown {self._kind.partition(' ')[2]}",
            found=repr(name)[:120],
            expected=" | ".join(known),
            do=f"name one of these, or register your own with {self._register}",
        )

    def names(self) -> tuple[str, ...]:
        """Return the names, sorted."""
        return tuple(sorted(self._values))
