"""Strict schemas of JSON documents: exactly the members named, and no conversion between types.

This module imports pydantic, so it is imported where a file is read or written.
"""

from functools import lru_cache
from numbers import Real
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from steer.errors import SteerError
from steer.store._refusals import wrong

MAX_DIMENSIONS = 16
_T = TypeVar("_T")
_EXPECTED = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "an array",
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "string_unicode": "valid Unicode text, without half of a surrogate pair",
    "int_type": "an integer",
    "float_type": "a number",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
}


class Record(BaseModel):
    """A JSON object that has exactly the members named; one with a default may be absent."""

    model_config = ConfigDict(strict=True, frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _check_members(cls, value: Any) -> Any:
        """Refuse missing and unknown members in one error, however many there are."""
        names = cls.model_fields
        needed = {name: None for name, field in names.items() if field.is_required()}
        if isinstance(value, dict) and not needed.keys() <= value.keys() <= names.keys():
            missing = [name for name in needed if name not in value]
            unknown = [name for name in value if name not in names][:5]
            said = {"found": f"missing {missing}, unknown {unknown}", "expected": [*names]}
            raise PydanticCustomError("members", "{found}", said)
        return value


def _plain(value: object) -> object:
    """Return a number of any library as a float, so that 1, 1.0 and NumPy's 1.0 are one value."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if number else value  # type: ignore[arg-type]


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
LayerNumber = Annotated[int, Field(ge=-1)]
Number = Annotated[float, BeforeValidator(_plain)]
Length = Annotated[float, Field(ge=0), BeforeValidator(_plain)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_plain)]
Array = Annotated[list[_T], Field(fail_fast=True)]
Shape = Annotated[list[Positive], Field(fail_fast=True, max_length=MAX_DIMENSIONS)]


class TensorRecord(Record):
    """What a description says about one tensor."""

    dtype: Text
    shape: Shape
    sha256: Text


class Description(Record):
    """What every description says: its version, and its tensors, of which one alone is refused."""

    format_version: Positive
    tensors: Annotated[
        dict[str, TensorRecord], BeforeValidator(lambda t: by_name(TensorRecord, "tensors", t))
    ]


class TensorEntry(Record):
    """What the table of a container says about one tensor."""

    dtype: Text
    shape: Shape
    data_offsets: Array[Count]


def validated(kind: type[_T], where: str, value: object) -> _T:
    """Return a JSON value as a record, or raise the error for the first part that is unusable."""
    try:
        return _adapter(kind).validate_python(value)  # type: ignore[arg-type, no-any-return]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), SteerError):
            raise cause from None  # raised by a check of the whole
        path = ".".join(map(str, first["loc"]))
        raise wrong(f"{where}.{path}".strip("."), _found(first), _expected(first)) from None


def by_name(kind: type[_T], where: str, value: object) -> dict[str, _T]:
    """Return a JSON object of records by free names; validation stops at the first unusable one."""
    items = validated(dict[str, Any], where, value)
    return {name: validated(kind, f"{where}.{name}", item) for name, item in items.items()}


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _found(error: ErrorDetails) -> str:
    if error["type"] == "members":
        return str(error["ctx"]["found"])
    value = error["input"]
    if error["type"] in ("too_long", "too_short"):
        return f"{error['ctx']['actual_length']} items"
    return "null" if value is None else f"{type(value).__name__} {str(value)[:80]!r}"


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "members":
        return f"exactly {context['expected']}"
    if error["type"] == "literal_error":
        return str(context["expected"])
    return _EXPECTED.get(error["type"], error["msg"]).format(**context)
