"""The setting of one request: coefficients by domain and a scope, in one small document."""

from collections.abc import Mapping
from dataclasses import dataclass

from steer._check import is_number
from steer.algebra import Scope, parse_scope
from steer.errors import CapabilityError, CompositionError
from steer.store._strict_json import loads

_KEYS = ("coefficients", "scope", "prompt_length")
_LONGEST = 1 << 16  # characters of a document
NO_END = 2**62  # a position that no request reaches


@dataclass(frozen=True, slots=True)
class RequestSetting:
    """Coefficients that are not zero, by domain, and the scope of all, None for each one's own.

    `prompt_length` is how many tokens count as the prompt, None for those that the request sends: a
    text that is only scored is sent as one prompt.
    """

    coefficients: Mapping[str, float]
    scope: Scope | None = None
    prompt_length: int | None = None


def read_setting(document: object, most: float) -> RequestSetting:
    """Return the setting of a document: `{"medical": 0.8}`, or that under `coefficients`.

    Args:
        document: A mapping from domain to coefficient, as a row of `Model.steered`; or one with
            the keys `coefficients`, `scope` and `prompt_length`; or either as JSON text, which
            HTTP needs.
        most: Largest size of a coefficient.

    Raises:
        CompositionError: The document, a coefficient or the scope cannot be read.
        CapabilityError: The scope depends on text that the model has yet to write.
    """
    if isinstance(document, str):
        document = _parsed(document)
    if not isinstance(document, Mapping):
        raise _unreadable(f"{type(document).__name__}: {document!r}"[:200])
    scope = length = None
    coefficients = document
    if isinstance(inner := document.get("coefficients"), Mapping):
        if other := sorted(map(str, document.keys() - set(_KEYS))):
            raise _unreadable(f"the keys {', '.join(other)}"[:200])
        coefficients = inner
        if document.get("scope") is not None:
            scope = _scope(document["scope"])
        if document.get("prompt_length") is not None:
            length = _length(document["prompt_length"])
    read = {_name(d): _coefficient(d, c, most) for d, c in coefficients.items()}
    named = {domain: read[domain] for domain in sorted(read) if read[domain]}
    return RequestSetting(named, scope, length)


def interval(scope: Scope, prompt: int) -> tuple[int, int]:
    """Return the first position that a scope steers, and the first after it, for a prompt length.

    Raises:
        CapabilityError: The scope depends on text that the model has yet to write.
    """
    if scope.marker is not None:
        raise CapabilityError(
            "a server cannot steer by a marker in the text",
            found=str(scope),
            expected="a scope that the prompt's length decides, such as 'response'",
            do="use Model.generate, which reads the text as it is written",
        )
    first, end = {
        "all": (0, NO_END),
        "prompt": (0, prompt),
        "response": (prompt, NO_END),
        "last_prompt": (prompt - 1, prompt),
    }[scope.part]
    stop = NO_END if scope.stop is None else scope.stop
    return max(first, scope.start), min(end, stop)


def _parsed(text: str) -> object:
    if len(text) > _LONGEST:  # read on the server's only thread
        raise _unreadable(f"a text of {len(text)} characters, more than {_LONGEST}")
    try:
        return loads(text)
    except ValueError as error:
        raise _unreadable(f"text that is not valid JSON: {text[:80]!r}") from error


def _scope(value: object) -> Scope:
    if not isinstance(value, str):
        raise _unreadable(f"the scope {value!r}"[:200])
    scope = parse_scope(value)
    interval(scope, 1)  # refuses a marker
    return scope


def _length(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _unreadable(f"the prompt_length {value!r}"[:200])
    return value


def _name(domain: object) -> str:
    if not isinstance(domain, str):
        raise _unreadable(f"the domain {domain!r}"[:200])
    return domain


def _coefficient(domain: object, value: object, most: float) -> float:
    if not is_number(value) or not abs(float(value)) <= most:  # type: ignore[arg-type]  # NaN too
        raise CompositionError(
            f"the coefficient of {str(domain)[:80]!r} cannot be used",
            found=repr(value)[:80],
            expected=f"a number from {-most:g} to {most:g}",
            do="choose a smaller one, or start the server with a larger `max_coefficient`",
        )
    return float(value)  # type: ignore[arg-type]


def _unreadable(found: str) -> CompositionError:
    return CompositionError(
        "the setting of this request cannot be read",
        found=found,
        expected='{"DOMAIN": number, …}, or {"coefficients": {…}, "scope": "response"}, or that as '
        "JSON text",
        do="gates and operators other than add are not available in a server",
    )
