"""Row shapes: each reads the fields of a row as prompt, chosen and rejected."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from steer.errors import PairsError
from steer.pairs._columns import Fields
from steer.pairs._conversation import (
    check_answer,
    is_transcript,
    part_conversations,
    part_texts,
    read_messages,
    read_transcript,
)
from steer.pairs._pair import Message, Pair, Prompt, shown, wrong_type

Parts = tuple[Prompt, str, str]


def _text(fields: Fields) -> Parts:
    return _string(fields, "prompt"), _string(fields, "chosen"), _string(fields, "rejected")


def _messages(fields: Fields) -> Parts:
    prompt = fields["prompt"]
    return (
        prompt if isinstance(prompt, str) else read_messages(prompt, "prompt"),
        _answer(fields, "chosen"),
        _answer(fields, "rejected"),
    )


def _whole_messages(fields: Fields) -> Parts:
    parts = part_conversations(
        read_messages(fields["chosen"], "chosen"), read_messages(fields["rejected"], "rejected")
    )
    if "prompt" in fields:
        _check_repeated_prompt(fields["prompt"], parts[0])
    return parts


def _transcripts(fields: Fields) -> Parts:
    return part_conversations(
        read_transcript(_string(fields, "chosen"), "chosen"),
        read_transcript(_string(fields, "rejected"), "rejected"),
    )


def _whole_text(fields: Fields) -> Parts:
    return part_texts(_string(fields, "chosen"), _string(fields, "rejected"))


SHAPES: Mapping[str, tuple[Callable[[Fields], Parts], str]] = MappingProxyType(
    {
        "text": (_text, "prompt, chosen and rejected as text"),
        "messages": (_messages, "prompt as messages or text, the answers as one message or text"),
        "whole_messages": (_whole_messages, "chosen and rejected as conversations of messages"),
        "transcripts": (_transcripts, "chosen and rejected as Human: ... Assistant: ..."),
        "whole_text": (_whole_text, "chosen and rejected as texts that begin alike, no prompt"),
    }
)


def find_shape(fields: Fields) -> str:
    """Return the name of the shape of a row, from its columns and the types of their values."""
    kinds = {f: _kind(fields, f) for f in ("prompt", "chosen", "rejected") if f in fields}
    answers = [fields["chosen"], fields["rejected"]]
    if "prompt" not in kinds:
        if "list" in (kinds["chosen"], kinds["rejected"]):
            return "whole_messages"
        return "transcripts" if any(is_transcript(text) for text in answers) else "whole_text"
    if set(kinds.values()) == {"str"}:
        return "text"
    whole = any(isinstance(answer, list | tuple) and len(answer) > 1 for answer in answers)
    return "whole_messages" if whole else "messages"


def read_pair(fields: Fields, shape: str, domain: str | None) -> Pair:
    """Return the pair that a row of a known shape holds."""
    prompt, chosen, rejected = SHAPES[shape][0](fields)
    if domain is None and "domain" in fields:
        domain = fields["domain"]
    return Pair(_with_system(fields, prompt), chosen, rejected, domain)


def _with_system(fields: Fields, prompt: Prompt) -> Prompt:
    """Return the prompt with the text of a column ``system``, if any, as its first message."""
    if "system" not in fields or fields["system"] in (None, ""):
        return prompt
    system = Message("system", _string(fields, "system"))
    if isinstance(prompt, str):
        return (system, Message("user", prompt))
    if prompt and prompt[0].role == "system":
        if prompt[0] != system:
            raise PairsError(
                "field 'system' and the system message of the prompt differ",
                found=f"{shown(system.content)} and {shown(prompt[0].content)}",
                expected="the same text, or one of them",
                do="remove one of them",
            )
        return prompt
    return (system, *prompt)


def _check_repeated_prompt(prompt: object, shared: tuple[Message, ...]) -> None:
    """Raise unless a prompt beside two whole conversations repeats their beginning."""
    if isinstance(prompt, str):
        same = prompt in [message.content for message in shared if message.role == "user"]
    else:
        same = read_messages(prompt, "prompt") == shared
    if not same:
        raise PairsError(
            "field 'prompt' is not the beginning of chosen and rejected",
            found=f"prompt {shown(prompt)}, shared beginning {shown(shared)}",
            expected="the same conversation, or the text of one of its user messages",
            do="remove the column, or put only the answers in chosen and rejected",
        )


def _answer(fields: Fields, field: str) -> str:
    value = fields[field]
    if isinstance(value, str):
        return value
    messages = read_messages(value, field)
    if [message.role for message in messages] != ["assistant"]:
        raise PairsError(
            f"field '{field}' is not one answer",
            found=f"messages of {[message.role for message in messages]}",
            expected="text, or a list of exactly one assistant message",
            do="put everything before the answer into the prompt",
        )
    check_answer(messages[0], field)
    return messages[0].content


def _string(fields: Fields, field: str) -> str:
    value = fields[field]
    if not isinstance(value, str):
        raise wrong_type(f"field '{field}'", value, "text")
    return str(value)


def _kind(fields: Fields, field: str) -> str:
    value = fields[field]
    if not isinstance(value, str | list | tuple):
        raise wrong_type(f"field '{field}'", value, "text, or a list of messages")
    return "str" if isinstance(value, str) else "list"
