"""Preference pairs and the messages of their prompts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from steer.errors import PairsError
from steer.show import Shown

if TYPE_CHECKING:
    from steer.show import Card

ROLES = ("system", "user", "assistant")
_SHOWN = 80


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: ``"system"``, ``"user"`` or ``"assistant"``.
        content: The text of the turn, kept verbatim.
        fields: Further fields for the chat template, by name (`tool_calls`,
            `reasoning_content`, …); JSON values.

    Raises:
        PairsError: The role is not one of the three, the content is not valid text, or a field is
            not a JSON value.
    """

    role: str
    content: str
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise PairsError(
                "a message has an unknown role",
                found=shown(self.role),
                expected=f"one of {', '.join(ROLES)}",
                do="rename the role, or leave the row out",
            )
        _check_text(self.content, "content of a message")
        object.__setattr__(self, "fields", MappingProxyType(_json_copy(self.fields)))

    def as_dict(self) -> dict[str, Any]:
        """Return the message as a chat template takes it."""
        return {"role": self.role, "content": self.content, **_json_copy(self.fields)}

    def __repr__(self) -> str:
        more = f", fields={dict(self.fields)!r}" if self.fields else ""
        return f"Message(role={self.role!r}, content={self.content!r}{more})"

    def __reduce__(self) -> tuple[object, ...]:
        return Message, (self.role, self.content, dict(self.fields))


Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, repr=False)
class Pair(Shown):
    """A prompt with a chosen and a rejected answer.

    Text is kept verbatim: ``" Yes"`` keeps its leading space.

    Args:
        prompt: One user turn as plain text, or a conversation that ends with a user turn, or with
            a message of the assistant that both answers continue.
        chosen: The preferred answer.
        rejected: The other answer; it differs from ``chosen``.
        domain: The domain that this pair belongs to, or ``None``.

    Raises:
        PairsError: A text is missing, blank or not valid Unicode, both answers are equal, or
            the messages of the prompt are in an invalid order.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    domain: str | None = None

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        for name in ("chosen", "rejected"):
            _check_filled(getattr(self, name), f"field '{name}'")
            object.__setattr__(self, name, str(getattr(self, name)))  # of a subclass: plain text
        if self.chosen == self.rejected:
            raise PairsError(
                "chosen and rejected are equal",
                found=shown(self.chosen),
                expected="two different answers",
                do="correct one answer, or leave the row out",
            )
        if self.domain is not None:
            _check_filled(self.domain, "field 'domain'")

    @property
    def text(self) -> tuple[tuple[Message, ...], str, str]:
        """The prompt as messages, chosen and rejected: everything but the domain."""
        return messages_of(self.prompt), self.chosen, self.rejected

    def swap(self) -> "Pair":
        """Return the pair with chosen and rejected exchanged."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)

    def _card(self) -> "Card":
        from steer.pairs._show import pair_card

        return pair_card(self)


def shown(value: object) -> str:
    """Return a short repr of a value for an error message, with its type."""
    text = repr(value)
    short = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return short if isinstance(value, str) else f"{short} ({type(value).__name__})"


def wrong_type(name: str, value: object, wanted: str) -> PairsError:
    """Return the error for a value of the wrong type."""
    return PairsError(
        f"{name} has the wrong type",
        found=f"keys {shown(list(value))}" if isinstance(value, Mapping) else shown(value),
        expected=wanted,
        do="convert the value, or leave the row out",
    )


def about(where: str, error: PairsError, more: str = "") -> PairsError:
    """Return an error that says where it happened, and what more can be done."""
    what, do = f"{where}: {error.what}", f"{error.do}{more}"
    return PairsError(what, found=error.found, expected=error.expected, do=do)


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages: plain text is one user turn."""
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def canonical(value: Pair | Prompt) -> str:
    """Return a pair or a prompt as canonical JSON: ASCII only, no spaces, fixed order."""
    return json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def _plain(value: Pair | Prompt) -> object:
    if isinstance(value, Pair):
        return [_plain(value.prompt), value.chosen, value.rejected, value.domain]
    if isinstance(value, str):
        return value
    return [
        [message.role, message.content, *([dict(message.fields)] if message.fields else [])]
        for message in value
    ]


def _json_copy(fields: object) -> dict[str, Any]:
    """Return the fields of a message as a deep copy of JSON values."""
    if isinstance(fields, Mapping) and not fields:
        return {}
    if isinstance(fields, Mapping) and not {"role", "content"} & set(fields):
        try:
            copy = json.loads(json.dumps(dict(fields), allow_nan=False))
            if copy == fields:
                return dict(copy)
        except (TypeError, ValueError, RecursionError):
            pass
    raise PairsError(
        "the fields of a message cannot be stored",
        found=shown(fields),
        expected="a mapping of names other than role and content to JSON values",
        do="convert the values, or leave the row out",
    )


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, tuple) or not all(isinstance(m, Message) for m in prompt):
        _check_filled(prompt, "field 'prompt'", wanted="a str, or a tuple of Message")
        return
    roles = [message.role for message in prompt]
    if not roles or roles[-1] == "system" or "system" in roles[1:]:
        raise PairsError(
            "field 'prompt' has its messages in an invalid order",
            found=f"roles {roles}",
            expected="an optional system message first; last a message of the user, or one of the "
            "assistant that the answers continue",
            do="correct the order, or leave the row out",
        )
    _check_filled(prompt[-1].content, f"last {roles[-1]} message of field 'prompt'")


def _check_filled(value: object, name: str, wanted: str = "a str") -> None:
    text = _check_text(value, name, wanted)
    if not text.strip():
        raise PairsError(
            f"{name} is empty" if not text else f"{name} holds white space only",
            found=shown(text),
            expected="text",
            do="fill it in, or leave the row out",
        )


def _check_text(value: object, name: str, wanted: str = "a str") -> str:
    if not isinstance(value, str):
        raise wrong_type(name, value, wanted)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PairsError(
            f"{name} is not valid Unicode",
            found=f"{value[error.start]!r} (half of a surrogate pair) at character {error.start}",
            expected="text that can be written as UTF-8",
            do="repair the text where it was written",
        ) from None
    return value
