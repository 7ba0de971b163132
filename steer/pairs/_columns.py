"""From the column names of a file to the names of our fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steer.errors import PairsError
from steer.pairs._conversation import is_filled
from steer.pairs._pair import shown

FIELDS = ("prompt", "chosen", "rejected", "system", "domain")
_ANSWERS = ("chosen", "rejected")
PROMPT_ALIAS = "question"
ANSWER_ALIASES = (
    ("answer_matching_behavior", "answer_not_matching_behavior"),
    ("matching", "not_matching"),
    ("positive", "negative"),
)
_OF_THE_MODEL = "pass it to the model: Model(…, chat_template_kwargs={…}), and remove the column"
_OF_THE_PROMPT = "write it into the messages of the prompt, and remove the column"
_OF_THE_SYSTEM = 'say that it is the system message: columns={{"system": "{}"}}'
_OF_THE_ANSWERS = "write it into the answers as the model writes it, and remove the column"
_NO_TEXT = "leave these rows out, or remove the column if the text says everything"
_NOT_CARRIED = {  # columns that change what a model reads, and what to do about them
    "tools": _OF_THE_MODEL,
    "documents": _OF_THE_MODEL,
    "chat_template_kwargs": _OF_THE_MODEL,
    "history": _OF_THE_PROMPT,
    "tool_calls": _OF_THE_PROMPT,
    "system_prompt": _OF_THE_SYSTEM.format("system_prompt"),
    "system_message": _OF_THE_SYSTEM.format("system_message"),
    "reasoning_content": _OF_THE_ANSWERS,
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), _NO_TEXT),
}


@dataclass(frozen=True)
class Fields:
    """The values of one row by field, and the names of their columns."""

    values: Mapping[str, Any]
    names: Mapping[str, str]
    columns: tuple[str, ...]

    def __contains__(self, field: str) -> bool:
        return field in self.values

    def __getitem__(self, field: str) -> Any:
        if field not in self.values:
            raise missing_field(field, self.columns)
        return self.values[field]

    def note(self) -> str:
        """Return which columns were renamed, and which look like a field that is missing."""
        said = [f"{f} is column {c!r}" for f, c in self.names.items() if f != c]
        said += [
            f"column {name!r} is not read; is it {_hint(self.columns, field)}?"
            for field in FIELDS
            if field not in self.names and (name := _alike(field, self.columns))
        ]
        return f" ({', '.join(said)})" if said else ""


def name_fields(row: object, columns: Mapping[str, str]) -> Fields:
    """Return the fields of a row.

    A name in ``columns`` comes first, then a column with our own name, then a usual other name.
    """
    if not isinstance(row, Mapping):
        raise PairsError(
            "a row is not an object with named fields",
            found=shown(row),
            expected='an object like {"prompt": ..., "chosen": ..., "rejected": ...}',
            do="write every pair as one object",
        )
    known = tuple(str(name) for name in row)
    taken = set(columns.values())
    names = {field: field for field in FIELDS if field in row and field not in taken}
    names.update(columns)
    for field, column in columns.items():
        if column not in row:
            raise missing_field(field, known, column)
    if PROMPT_ALIAS in row and PROMPT_ALIAS not in taken:
        names.setdefault("prompt", PROMPT_ALIAS)
    if "chosen" not in names and "rejected" not in names:
        names.update(_answer_names(known, taken))
    for field in _ANSWERS:
        if field not in names:
            raise missing_field(field, known)
    for column, do in _NOT_CARRIED.items():
        if column in row and column not in names.values() and is_filled(row[column]):
            raise PairsError(
                f"field '{column}' cannot be carried by a pair",
                found=shown(row[column]),
                expected="prompt, chosen and rejected that contain everything the model reads",
                do=do,
            )
    return Fields({field: row[column] for field, column in names.items()}, names, known)


def missing_field(field: str, known: tuple[str, ...], column: str | None = None) -> PairsError:
    """Return the error for a field that a row lacks."""
    return PairsError(
        f"field '{column or field}' is missing",
        found=f"columns {list(known)}",
        expected=f"a column '{column}' for {field}" if column else f"a column '{field}'",
        do=f"add it, or say which column it is: {_hint(known, field)}",
    )


def _hint(known: tuple[str, ...], *fields: str) -> str:
    """Return the argument that names the columns of some fields, as far as they look like them."""
    alike = {field: _alike(field, known) for field in fields}
    said = (f'"{f}": {"..." if name is None else repr(name)}' for f, name in alike.items())
    return f"columns={{{', '.join(said)}}}"


def _alike(field: str, known: tuple[str, ...]) -> str | None:
    """Return a column whose name equals a field's up to case and spaces."""
    names = (field, PROMPT_ALIAS) if field == "prompt" else (field,)
    return next((name for name in known if name.strip().lower() in names), None)


def _answer_names(known: tuple[str, ...], taken: set[str]) -> dict[str, str]:
    free = {*known} - taken
    whole = [pair for pair in ANSWER_ALIASES if free.issuperset(pair)]
    if len(whole) == 1:
        return dict(zip(_ANSWERS, whole[0], strict=True))
    half = [pair for pair in ANSWER_ALIASES if len(free.intersection(pair)) == 1]
    if not whole and len(half) == 1:
        lacking = zip(_ANSWERS, half[0], strict=True)
        field, column = next(pair for pair in lacking if pair[1] not in free)
        raise missing_field(field, known, column)
    wanted = ["chosen and rejected", *(f"{a} and {b}" for a, b in ANSWER_ALIASES)]
    raise PairsError(
        "no columns with two answers" if not whole else "more than one set of answer columns",
        found=f"columns {list(known)}",
        expected=f"one set of answers ({'; '.join(wanted)}), as text or messages, and the prompt "
        "in a column prompt or question or at the beginning of both answers",
        do=f"say which columns they are: {_hint(known, 'prompt', *_ANSWERS)}",
    )
