"""One preference pair and the messages its prompt may consist of."""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from steer.errors import PairsError
from steer.shown import Shown

if TYPE_CHECKING:
    from steer.show.card import Card

ROLES = ("system", "user", "assistant")
_SHOWN = 80


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: ``"system"``, ``"user"`` or ``"assistant"``.
        content: The text of the turn, kept to the letter.

    Raises:
        PairsError: The role is none of the three, or the content is not valid text.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise PairsError(
                "a message has an unknown role",
                found=shown(self.role),
                expected=f"one of {', '.join(ROLES)}",
                do="rename the role, or leave the row out",
            )
        _check_text(self.content, "content of a message")


Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, repr=False)
class Pair(Shown):
    """A prompt with a wanted and an unwanted answer.

    Text is kept to the letter: ``" Yes"`` keeps its leading space.

    Args:
        prompt: One user turn as plain text, or a conversation that ends with a user turn.
        chosen: The wanted answer.
        rejected: The unwanted answer; it differs from ``chosen``.
        domain: The knob that this pair belongs to, or ``None``.

    Raises:
        PairsError: A text is missing, blank or not valid Unicode, both answers are equal, or
            the messages of the prompt are in an impossible order.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    domain: str | None = None

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        for field in ("chosen", "rejected"):
            _check_filled(getattr(self, field), f"field '{field}'")
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
        """What the model reads, whatever the domain: the prompt as messages, chosen, rejected."""
        return messages_of(self.prompt), self.chosen, self.rejected

    def swap(self) -> "Pair":
        """Return the pair with chosen and rejected exchanged."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)

    def _card(self) -> "Card":
        from steer.pairs.show import pair_card

        return pair_card(self)


def shown(value: object) -> str:
    """Return a value as an error message shows it: its type, and at most 80 characters of it."""
    text = repr(value)
    short = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return short if isinstance(value, str) else f"{short} ({type(value).__name__})"


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages: plain text is one user turn."""
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def canonical(value: Pair | Prompt) -> str:
    """Return a pair or a prompt as canonical JSON: ASCII only, no spaces, fixed order."""
    return json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":"))


def _plain(value: Pair | Prompt) -> object:
    if isinstance(value, Pair):
        return [_plain(value.prompt), value.chosen, value.rejected, value.domain]
    if isinstance(value, str):
        return value
    return [[message.role, message.content] for message in value]


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, tuple) or not all(isinstance(m, Message) for m in prompt):
        _check_filled(prompt, "field 'prompt'", wanted="a str, or a tuple of Message")
        return
    roles = [message.role for message in prompt]
    if not roles or roles[-1] != "user" or "system" in roles[1:]:
        raise PairsError(
            "field 'prompt' has its messages in an impossible order",
            found=f"roles {roles}",
            expected="an optional system message first, and a user message last",
            do="move what the assistant says last to the answers, or leave the row out",
        )
    _check_filled(prompt[-1].content, "last user message of field 'prompt'")


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
        raise PairsError(
            f"{name} has the wrong type",
            found=shown(value),
            expected=wanted,
            do="convert the value to text, or leave the row out",
        )
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
