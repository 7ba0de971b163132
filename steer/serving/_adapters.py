"""Low-rank weight vectors of a request, as one adapter of vLLM for each distinct setting.

The adapter of {medical: 0.8, legal: −0.3} holds the factors of both side by side with their
coefficients on one side, which is exact: a sum of adapters in vLLM or PEFT is not.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from steer.algebra import LowRank, Scope, Vector, Weight, compose
from steer.errors import CapabilityError, CompositionError
from steer.exchange import write
from steer.serving._folder import digest

_FIRST_ID = 1_000_000  # beyond those of the adapters that a server is started with


class Adapters:
    """The weight vectors of an engine, and an adapter for each setting that was asked for.

    Args:
        vectors: Weight vectors by domain.
        base: Folder or id of the model.
        most: Most distinct settings.
    """

    def __init__(self, vectors: Mapping[str, Vector], base: str, most: int) -> None:
        self._vectors, self._base, self._most = vectors, base, most
        self._folder = TemporaryDirectory(prefix="steer-adapters-")
        self._made: dict[tuple[tuple[str, float], ...], tuple[str, int, str]] = {}

    def needed(self, coefficients: Mapping[str, float]) -> bool:
        """Return whether a setting changes weights."""
        return bool(coefficients.keys() & self._vectors.keys())

    def of(
        self, coefficients: Mapping[str, float], scope: Scope | None
    ) -> tuple[str, int, str] | None:
        """Return name, number and folder of the adapter of a setting; None if it needs none.

        Raises:
            CapabilityError: The scope is not everything: weights act on all tokens.
            CompositionError: Too many distinct settings.
        """
        own = {d: c for d, c in coefficients.items() if d in self._vectors}
        if not own:
            return None
        if scope is not None and not scope.everything:
            raise CapabilityError(
                "weight vectors act on every token",
                found=f"{', '.join(own)} with the scope {str(scope)!r}",
                expected="the scope 'all'",
                do="leave the scope out, or these domains",
            )
        key = tuple(sorted(own.items()))
        if key not in self._made:
            self._made[key] = self._write(own)
        return self._made[key]

    def _write(self, own: Mapping[str, float]) -> tuple[str, int, str]:
        if len(self._made) >= self._most:
            raise CompositionError(
                "too many distinct settings of weight vectors",
                found=f"{len(self._made)} adapters",
                expected=f"at most {self._most}, as this server was started",
                do="use coefficients that were used before, or start it with more `adapters`",
            )
        setting = compose({domain: self._vectors[domain] for domain in own})(dict(own))
        content = sorted((digest(self._vectors[d]), c) for d, c in own.items())
        name = sha256(repr(content).encode()).hexdigest()
        path = Path(self._folder.name) / name
        write(setting, path, "peft", base=self._base)
        return f"steer-{name[:16]}", _FIRST_ID + len(self._made), str(path)


def rank(vectors: Mapping[str, Vector]) -> int:
    """Return the rank of an adapter of all vectors at once, or refuse those that are not low-rank.

    Raises:
        CapabilityError: A term is not low-rank.
    """
    total: dict[str, int] = {}
    for name, vector in vectors.items():
        for site, term in vector.terms.items():
            if not isinstance(site, Weight) or not isinstance(term, LowRank):
                raise CapabilityError(
                    f"the vector {name!r} cannot be served",
                    found=f"{site}: {type(term).__name__}",
                    expected="low-rank changes of weights",
                    do="steer.low_rank(vector, rank) makes them, or merge it: steer merge",
                )
            total[site.name] = total.get(site.name, 0) + term.rank
    return max(total.values(), default=0)


def check_lora(config: Any, needed: int, most: int) -> None:
    """Refuse an engine whose adapters cannot hold the weight vectors.

    Raises:
        CapabilityError: LoRA is off, its rank is too small, or too few adapters fit a step.
    """
    lora = config.lora_config
    if lora is None:
        found = "LoRA is off"
    elif lora.max_lora_rank < needed:
        found = f"max_lora_rank {lora.max_lora_rank}"
    elif lora.max_loras <= most:  # on a CPU, rows without an adapter are wrong when all are in use
        found = f"max_loras {lora.max_loras} for {most} adapters"
    else:
        return
    raise CapabilityError(
        "the weight vectors of the folder cannot be served",
        found=found,
        expected=f"--enable-lora, --max-lora-rank of at least {needed}, --max-loras of at least "
        f"{most + 1}",
        do="start the server so, or leave weight vectors out of the folder",
    )
