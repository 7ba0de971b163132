"""A frozen sequence of preference pairs."""

import hashlib
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from steer._check import as_list, integer, one_of
from steer.errors import PairsError
from steer.pairs._columns import FIELDS
from steer.pairs._load import RejectedRow, read_pairs
from steer.pairs._pair import Pair, canonical, messages_of, shown
from steer.pairs._shapes import SHAPES
from steer.pairs._sources import open_source
from steer.pairs._split import part_numbers
from steer.show import Shown
from steer.store import path_of, write_text

if TYPE_CHECKING:
    import datasets

    from steer.show import Card

_PARTS = (0.6, 0.2, 0.2)  # to record, to choose and to test
_FILES = (".jsonl", ".json", ".csv", ".parquet", ".gz")


@dataclass(frozen=True, repr=False)
class Pairs(Shown, Sequence[Pair]):
    """Preference pairs in a fixed order.

    Two ``Pairs`` are equal if they hold equal pairs in the same order; their source
    does not matter.

    Args:
        items: The pairs.
        source: The name of their source.
        rejected_rows: The rows of the source that are not valid pairs; only a load with
            ``on_bad="report"`` has any.

    Raises:
        PairsError: An item is not a ``Pair``.
    """

    items: tuple[Pair, ...]
    source: str = field(default="memory", compare=False)
    rejected_rows: tuple[RejectedRow, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for number, item in enumerate(self.items):
            if not isinstance(item, Pair):
                raise PairsError(
                    f"item {number} (counted from 0) is not a Pair",
                    found=shown(item),
                    expected="Pair objects",
                    do="read dict rows with Pairs.load",
                )

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> "Pairs":
        """Return pairs from memory as one sequence.

        Args:
            pairs: The pairs, in their order.

        Returns:
            The pairs.

        Raises:
            PairsError: An item is not a ``Pair``.

        >>> Pairs.of([Pair("Is it safe?", "No.", "Yes.", domain="medical")]).domains
        ('medical',)
        """
        return cls(tuple(pairs))

    @classmethod
    def load(
        cls,
        source: "str | Path | Sequence[Mapping[str, Any]] | datasets.Dataset",
        *,
        domain: str | None = None,
        shape: str | None = None,
        columns: Mapping[str, str] | None = None,
        split: str | None = None,
        limit: int | None = None,
        on_bad: Literal["error", "report"] = "error",
    ) -> "Pairs":
        r"""Return the pairs of a file, a data set or a list of rows.

        A row has one of these shapes, the same in the whole source; it is detected from the names
        of the columns and the types of the values, or forced with ``shape``:

        - ``"text"``: prompt, chosen and rejected as text. Other accepted names:
          ``question`` for the prompt; ``answer_matching_behavior`` and
          ``answer_not_matching_behavior``, ``matching`` and ``not_matching``, ``positive`` and
          ``negative`` for the answers.
        - ``"messages"``: the prompt as a list of ``{"role": ..., "content": ...}``, each answer
          as text or as a list of one assistant message.
        - ``"whole_messages"``: chosen and rejected as whole conversations that differ in their
          last message only; the rest is the prompt.
        - ``"transcripts"``: the same as text, ``"\n\nHuman: ...\n\nAssistant: ..."``.
        - ``"whole_text"``: two texts with a common beginning, split before the first word that
          differs; the space before that word goes with the answers.

        Columns ``domain`` and ``system`` (a system message) are read if they exist. A row is
        refused if it has a value in a column that changes what the model reads but that a pair
        cannot carry: ``tools``, ``documents``, ``chat_template_kwargs``, ``history``,
        ``tool_calls``, ``reasoning_content``, ``system_prompt``, ``system_message``, and images,
        videos and audio. Other columns are ignored. Messages of a prompt keep the fields that chat
        templates read (``tool_calls``, ``reasoning_content``, …). Text is kept verbatim: nothing is
        trimmed.

        Args:
            source: A ``.jsonl``, ``.json``, ``.csv`` (each also ``.gz``) or ``.parquet`` file;
                a directory or a name for ``datasets``; a ``datasets.Dataset`` or
                ``DatasetDict``; a list of mappings. An existing path takes precedence over a name.
            domain: The domain of every pair, instead of any column ``domain``.
            shape: One of the names above; ``None`` detects it.
            columns: Our name → the name in the source: ``{"prompt": "my_question"}``; our names
                are prompt, chosen, rejected, system and domain.
            split: The split of a data set that has several.
            limit: The largest number of pairs; later rows are not read.
            on_bad: How to treat a readable row that is not a valid pair: ``"error"`` raises,
                ``"report"`` skips it, warns with the number of such rows and lists them in
                ``rejected_rows``. Damaged files always raise.

        Returns:
            The pairs, in the order of the source.

        Raises:
            ArgumentError: An unknown `shape`, `on_bad` or key of `columns`, or a `limit` below 1.
            PairsError: The source cannot be read, or a row is not a valid pair; the message names
                source, row and field.
        """
        columns = columns or {}
        for name in columns:
            one_of("a key of columns", name, FIELDS, do='write columns={"prompt": "your name"}')
        one_of("shape", shape, (None, *SHAPES), do="leave it out to find it from the rows")
        one_of("on_bad", on_bad, ("error", "report"))
        if limit is not None:
            limit = min(integer("limit", limit, least=1), sys.maxsize)
        name, rows = open_source(source, split)
        pairs, rejected = read_pairs(
            rows, name, domain=domain, shape=shape, columns=columns, limit=limit, on_bad=on_bad
        )
        if rejected:
            warnings.warn(
                f"{name}: {len(rejected)} rows are not valid pairs and were left out; they are "
                f"listed in .rejected_rows, the first: {rejected[0]}",
                stacklevel=2,
            )
        return cls(pairs, name, rejected)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains in alphabetical order; empty if no pair has one.

        Raises:
            PairsError: Some pairs have a domain and others none, so that a loop over the
                domains would miss pairs.
        """
        groups = self.by_domain()
        names = tuple(name for name in groups if name is not None)
        if names and None in groups:
            raise PairsError(
                "some pairs have a domain and others none",
                found=f"{len(groups[None])} of {len(self)} pairs without, beside {names}",
                expected="a domain for every pair, or for none",
                do="give the others a domain: pairs.of_domain(None).with_domain(...)",
            )
        return names

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the pairs as canonical JSON, one per line; their order counts."""
        digest = hashlib.sha256()
        for pair in self.items:
            digest.update(f"{canonical(pair)}\n".encode())
        return digest.hexdigest()

    def of_domain(self, name: str | None) -> "Pairs":
        """Return the pairs of one domain; ``None`` for those without.

        Args:
            name: A domain that some pair has.

        Returns:
            Its pairs.

        Raises:
            PairsError: There is no such domain.
        """
        groups = self.by_domain()
        if name not in groups:
            raise PairsError(
                "there is no such domain",
                found=repr(name),
                expected=f"one of {', '.join(map(repr, groups)) or '(no pairs)'}",
                do="set the domain of all pairs with with_domain",
            )
        return groups[name]

    def by_domain(self) -> "dict[str | None, Pairs]":
        """Return the pairs of every domain, in alphabetical order, those without one last."""
        found: dict[str | None, list[Pair]] = {}
        for pair in self.items:
            found.setdefault(pair.domain, []).append(pair)
        names = sorted(found, key=lambda name: (name is None, name or ""))
        return {name: self._with(found[name]) for name in names}

    def split(self, *parts: float, seed: int = 0) -> tuple["Pairs", ...]:
        """Split the pairs reproducibly on every machine, whatever their order.

        Without sizes the parts are 60, 20 and 20 percent, for a recording, for `select` and for
        its test: `train, held_out, test = pairs.split()`. Every part has its share of every
        domain, up to rounding, and pairs with the same prompt stay together. Sizes are exact if no
        prompt repeats, otherwise as close as whole prompts allow.

        >>> pairs = Pairs.of(Pair(f"{n}?", "No.", "Yes.") for n in range(10))
        >>> [len(part) for part in pairs.split(0.8, 0.2)], [len(part) for part in pairs.split(7)]
        ([8, 2], [7, 3])

        Args:
            *parts: Fractions of all pairs (float), or numbers of pairs (int). One alone is the
                first of two parts; several must use up all pairs. By default 0.6, 0.2, 0.2.
            seed: A different seed gives a different split.

        Returns:
            The parts, each in the order of the whole.

        Raises:
            PairsError: The sizes do not fit or leave pairs over, or a part would have no pair of
                some domain.
        """
        numbers = part_numbers(self.items, parts or _PARTS, seed)
        return tuple(
            self._with(pair for pair, n in zip(self.items, numbers, strict=True) if n == part)
            for part in range(max(numbers) + 1)
        )

    def with_domain(self, name: str | None) -> "Pairs":
        """Return the pairs with one domain for all of them.

        Args:
            name: The domain, or ``None`` for none.

        Returns:
            New pairs in the same order.

        Raises:
            PairsError: The name is empty or not text.
        """
        return self._with(replace(pair, domain=name) for pair in self.items)

    def swap(self) -> "Pairs":
        """Return the pairs with chosen and rejected exchanged."""
        return self._with(pair.swap() for pair in self.items)

    def save(self, path: str | Path) -> None:
        """Write the pairs as JSON Lines, as ``Pairs.load`` reads them, atomically.

        Prompts are text if every prompt is; as soon as one is a conversation, all are messages.

        Args:
            path: The file; it must end in ``.jsonl``; an existing file is replaced.

        Raises:
            PairsError: The suffix is wrong, there is no pair, or the file cannot be written.
        """
        path = path_of(path, PairsError)
        if path.suffix != ".jsonl" or not self.items:
            raise PairsError(
                "these pairs cannot be written",
                found=f"{len(self.items)} pairs for {path}",
                expected="at least one pair, and a file that ends in .jsonl",
                do="pairs.save('held-out.jsonl')",
            )
        lines = (json.dumps(row, ensure_ascii=False) for row in self._rows())
        write_text(path, "".join(f"{line}\n" for line in lines), PairsError)

    def _rows(self) -> list[dict[str, Any]]:
        """Return a row for each pair: text if every prompt is, else messages."""
        plain = all(isinstance(pair.prompt, str) for pair in self.items)
        rows = [_row(pair, plain) for pair in self.items]
        if all(pair.domain is None for pair in self.items):
            return rows
        return [r | {"domain": pair.domain} for r, pair in zip(rows, self.items, strict=True)]

    def to_dataset(self) -> "datasets.Dataset":
        """Return a ``datasets.Dataset`` with the columns prompt, chosen, rejected and domain.

        Prompts and answers are text if every prompt is; as soon as one is a conversation, all
        are lists of messages. The column domain is there if any pair has one.
        """
        import datasets

        return datasets.Dataset.from_list(self._rows())

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | Pairs":
        return self._with(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __add__(self, other: "Pairs") -> "Pairs":
        if not isinstance(other, Pairs):
            return NotImplemented
        same = self.source == other.source
        source = self.source if same else f"{self.source} + {other.source}"
        rejected = self.rejected_rows + other.rejected_rows
        return Pairs(self.items + other.items, source, rejected)

    def __radd__(self, other: int) -> "Pairs":
        return self if type(other) is int and other == 0 else NotImplemented  # sum() begins so

    def _card(self) -> "Card":
        from steer.pairs._show import pairs_card

        return pairs_card(self.items, self.source, len(self.rejected_rows))

    def _with(self, pairs: Iterable[Pair]) -> "Pairs":
        return Pairs(tuple(pairs), self.source)


def as_pairs(pairs: Iterable[Pair], what: str = "pairs") -> Pairs:
    """Return any iterable of pairs as one frozen sequence.

    Args:
        pairs: ``Pairs``, or a list or another iterable of ``Pair``.
        what: Name of the argument, for the error message.

    Raises:
        ArgumentError: The argument is not an iterable, or is a text or a mapping.
        PairsError: An item is not a ``Pair``.
    """
    given: object = pairs
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith(_FILES)):
        raise PairsError(
            f"{what} must be pairs, not a path",
            found=repr(str(pairs))[:120],
            expected="Pairs, or an iterable of Pair",
            do="read the file: steer.Pairs.load(path)",
        )
    return pairs if isinstance(pairs, Pairs) else Pairs.of(as_list(what, pairs))


def _row(pair: Pair, plain: bool) -> dict[str, Any]:
    if plain:
        return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    prompt = [message.as_dict() for message in messages_of(pair.prompt)]
    answers = {
        name: [{"role": "assistant", "content": text}]
        for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    return {"prompt": prompt, **answers}
