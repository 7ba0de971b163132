"""The vectors that a server's requests can name: the slot, the content and the scope of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex

from steer.algebra import Part, Scope
from steer.errors import CompositionError
from steer.serving._bank import Entry
from steer.serving._folder import digest
from steer.serving._setting import RequestSetting, interval

_SECRET = token_hex()  # of this process


@dataclass(frozen=True, slots=True)
class Loaded:
    """One vector in force."""

    slot: int
    digest: str
    layers: tuple[int, ...]
    scope: Scope


class Library:
    """Vectors by domain, in the process that receives requests.

    Args:
        parts: Directions by domain, in the order of their slots.
        others: Domains that only change weights.
    """

    def __init__(self, parts: Mapping[str, Part], others: Iterable[str] = ()) -> None:
        self._loaded: dict[str, Loaded] = {}
        self._others = frozenset(others)
        for slot, (name, part) in enumerate(parts.items()):
            self.put(name, slot, part)

    @property
    def loaded(self) -> dict[str, Loaded]:
        """The vectors in force, by domain."""
        return dict(self._loaded)

    def put(self, name: str, slot: int, part: Part) -> None:
        """Have later requests that name a domain use what stands in a slot."""
        self._loaded[name] = Loaded(slot, digest(part.vector), part.vector.layers, part.scope)

    def drop(self, name: str) -> None:
        """Have later requests that name a domain refused."""
        self._loaded.pop(name)

    def entries(self, setting: RequestSetting, prompt: int) -> list[Entry]:
        """Return what a worker needs for a request with a prompt of so many tokens.

        Raises:
            CompositionError: A domain is not loaded.
        """
        known = {*self._loaded, *self._others}
        if unknown := sorted(setting.coefficients.keys() - known):
            raise CompositionError(
                "unknown domain",
                found=", ".join(unknown)[:200],
                expected=", ".join(sorted(known)) or "none: no vector is loaded",
                do="name a loaded domain, or load the vector",
            )
        found: list[Entry] = []
        for domain, c in setting.coefficients.items():
            if (own := self._loaded.get(domain)) is None:
                continue
            first, end = interval(setting.scope or own.scope, prompt)
            if first < end:
                found.append((own.slot, own.digest, c, first, end))
        return found


def salt(entries: Iterable[Entry], own: str | None) -> str:
    """Return a text that two requests share only if they may share blocks of the prefix cache.

    It depends on the content of the vectors, not on their names or slots, on the positions
    steered, since keys and values of the same tokens differ where the prompt ends elsewhere, and
    on the client's `own` salt. The secret keeps a client from sending a salt that others get.
    """
    content = sorted((d, c, first, end) for _, d, c, first, end in entries)
    return sha256(repr((_SECRET, own, content)).encode()).hexdigest()
