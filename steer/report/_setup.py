"""What a report is about: model, vectors, data, settings. No time and no machine."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from steer.algebra import Composition, ModelInfo, Vector, tensors
from steer.algebra._file.file import values_checksum
from steer.pairs import Pairs
from steer.show import Card, Result, Row
from steer.show._rows import table_of

_SHOWN = 16  # digits of a fingerprint


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Setup(Result):
    """What was measured, with which vectors, on which data.

    Args:
        model: The model; None if it is not known.
        composition: The vectors at their coefficients.
        data: Pairs by what they were used for.
        settings: Further arguments by name.
    """

    model: ModelInfo | None
    composition: Composition
    data: Mapping[str, Pairs]
    settings: Mapping[str, object]

    @property
    def rows(self) -> list[Row]:
        """One row per fact: about what, name, value."""
        import steer

        facts: list[tuple[str, str, object]] = [("library", "version", steer.__version__)]
        if self.model is not None:
            facts += [("model", name, value) for name, value in _model(self.model).items()]
        gate = self.composition.gate
        if gate is not None:
            facts.append(("gate", "layer", gate.layer))
        for use, pairs in self.data.items():
            facts += [
                (f"pairs: {use}", "number", len(pairs)),
                (f"pairs: {use}", "fingerprint", pairs.fingerprint[:_SHOWN]),
            ]
        facts += [("setting", name, value) for name, value in self.settings.items()]
        return [{"of": of, "what": what, "value": str(value)} for of, what, value in facts]

    @property
    def vectors(self) -> list[Row]:
        """One row per domain: its vector, how it is applied, and where it comes from."""
        table = self.composition.coefficients
        return [
            {
                "domain": name,
                "coefficient": float(table[0, k]) if len(table) == 1 else "by prompt",
                "operator": part.operator,
                "scope": str(part.scope),
                "sites": _sites(part.vector),
                "method": part.vector.provenance.method,
                "pairs": part.vector.provenance.pairs,
                "fingerprint": vector_fingerprint(part.vector)[:_SHOWN],
            }
            for k, (name, part) in enumerate(self.composition.parts.items())
        ]

    def _card(self) -> Card:
        return Card("", (), (table_of(self.vectors), table_of(self.rows)))


def vector_fingerprint(vector: Vector) -> str:
    """Return the SHA-256 of a vector's sites and numbers; what it was tuned for does not count.

    Args:
        vector: The vector.
    """
    digest = hashlib.sha256()
    for site, term in sorted(vector.terms.items(), key=lambda item: str(item[0])):
        for name, tensor in sorted(tensors(term).items()):
            line = f"{site} {type(term).__name__}.{name} {values_checksum(tensor)}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def _model(info: ModelInfo) -> dict[str, object]:
    return {
        "name": info.model_id,
        "revision": info.revision or "not known",
        "size": f"{info.n_layers} layers × {info.d_model}",
        "configuration": info.config[:_SHOWN],
        "tokenizer": info.tokenizer[:_SHOWN],
        "template": info.template[:_SHOWN],
    }


def _sites(vector: Vector) -> str:
    names = [str(site) for site in vector.sites]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)})"
