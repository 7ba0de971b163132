"""Conversations as messages or transcripts, and splitting two of them into prompt and answers."""

import re
from collections.abc import Mapping

from steer.errors import PairsError
from steer.pairs._common_prefix import common_prefix_length
from steer.pairs._pair import Message, about, shown, wrong_type

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_SPEAKER = {"Human": "user", "Assistant": "assistant"}
_CARRIED = (  # what chat templates read of a message besides role and content
    "name",
    "reasoning",
    "reasoning_content",
    "thinking",
    "tool_call_id",
    "tool_calls",
)
_EMPTY = ("", "[]", "{}", "null", "None")  # of a list or a mapping written as text
_MESSAGES = 'a list of {"role": ..., "content": ...}'
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")


def is_filled(value: object) -> bool:
    """Return whether a value is neither None nor an empty text, list or mapping."""
    return value.strip() not in _EMPTY if isinstance(value, str) else bool(value)


def is_transcript(text: str) -> bool:
    """Return whether a text begins like a transcript, with ``Human:`` or ``Assistant:``."""
    return _TURN.match(text) is not None


def read_messages(value: object, field: str) -> tuple[Message, ...]:
    """Return a list of messages or of ``{"role": ..., "content": ...}`` as messages."""
    if not isinstance(value, list | tuple):
        raise wrong_type(f"field '{field}'", value, _MESSAGES)
    messages = []
    for number, item in enumerate(value, start=1):
        if isinstance(item, Message):
            messages.append(item)
            continue
        if not isinstance(item, Mapping) or "role" not in item or "content" not in item:
            raise wrong_type(f"message {number} of field '{field}'", item, _MESSAGES)
        if media := [key for key in _MEDIA if is_filled(item.get(key))]:
            raise PairsError(
                f"message {number} of field '{field}' is not text only",
                found=f"{media[0]}: {shown(item[media[0]])}",
                expected="text messages",
                do="leave the row out",
            )
        more = {key: item[key] for key in _CARRIED if is_filled(item.get(key))}
        try:
            messages.append(Message(item["role"], item["content"], more))
        except PairsError as error:
            raise about(f"message {number} of field '{field}'", error) from None
    return tuple(messages)


def read_transcript(text: str, field: str) -> tuple[Message, ...]:
    r"""Return a transcript, ``"\n\nHuman: ...\n\nAssistant: ..."``, as messages.

    A turn begins with its speaker's name at the start of the text or after an empty line; the
    one space after the colon belongs to the name, everything else to the turn.
    """
    before, *parts = _TURN.split(text)
    speakers, turns = parts[::2], parts[1::2]
    expected = [("Human", "Assistant")[number % 2] for number in range(len(speakers))]
    if before or not speakers or speakers != expected:
        brief = "".join(speaker[0] for speaker in speakers)
        raise PairsError(
            f"field '{field}' is a transcript whose speakers do not alternate",
            found=f"{shown(text)} with the speakers {brief!r}",
            expected="Human, Assistant, Human, Assistant, ...",
            do="correct the transcript, or leave the row out",
        )
    return tuple(
        Message(_SPEAKER[speaker], turn.removeprefix(" "))
        for speaker, turn in zip(speakers, turns, strict=True)
    )


def part_conversations(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], str, str]:
    """Return the prompt that two conversations share, and the two answers after it."""
    roles = [m[-1].role if m else "nobody" for m in (chosen, rejected)]
    if roles != ["assistant", "assistant"]:
        raise PairsError(
            "a conversation does not end with an answer of the assistant",
            found=f"chosen ends with {roles[0]}, rejected with {roles[1]}",
            expected="the assistant's answer last in both",
            do="add the answer, or leave the row out",
        )
    if chosen[:-1] != rejected[:-1]:
        same = common_prefix_length(chosen, rejected)
        raise PairsError(
            "chosen and rejected differ before their last answer",
            found=f"{len(chosen)} and {len(rejected)} messages, the first {same} the same",
            expected="conversations that differ in their last message only",
            do="cut both conversations after the first answer that differs, or leave the row out",
        )
    for field, message in (("chosen", chosen[-1]), ("rejected", rejected[-1])):
        check_answer(message, field)
    if chosen[:-1] and chosen[-2].role == "assistant":
        raise PairsError(
            "chosen and rejected end with two messages of the assistant",
            found=f"roles {[message.role for message in chosen]}",
            expected="one message of the assistant after one of the user",
            do="put what both answers continue at the end of the prompt, in a separate column",
        )
    if len(chosen) == 1:
        raise PairsError(
            "chosen and rejected have no prompt",
            found="one message each, and no column 'prompt'",
            expected="at least one user message before the answer",
            do='say which column holds the prompt: columns={"prompt": ...}',
        )
    return chosen[:-1], chosen[-1].content, rejected[-1].content


def check_answer(message: Message, field: str) -> None:
    """Raise for an answer with fields other than role and content."""
    if message.fields:
        raise PairsError(
            f"field '{field}' is an answer with {', '.join(message.fields)}, which is not carried",
            found=shown(dict(message.fields)),
            expected="an answer with role and content only",
            do="write it into the content as the model writes it (<think>…</think>), remove it, or "
            "leave the row out",
        )


def part_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    r"""Return the common beginning of two texts, and the rest of each.

    The answers begin at the start of the word in which the texts first differ. One space in
    front of that word goes with the answer and a line end stays with the prompt, where
    tokenisers put them: ``"Pick:\n (A)"`` and ``"Pick:\n (B)"`` give ``"Pick:\n"``, ``" (A)"``
    and ``" (B)"``.
    """
    cut = common_prefix_length(chosen, rejected)
    if cut == min(len(chosen), len(rejected)):
        raise PairsError(
            "chosen and rejected are equal"
            if len(chosen) == len(rejected)
            else "one of chosen and rejected is the beginning of the other",
            found=f"{shown(chosen)} and {shown(rejected)}",
            expected="two texts with a shared beginning and a different end",
            do='put the prompt in a separate column: columns={"prompt": ...}',
        )
    if not (chosen[cut].isspace() and rejected[cut].isspace()):
        while cut and not chosen[cut - 1].isspace():
            cut -= 1
        if cut and chosen[cut - 1] not in "\r\n":
            cut -= 1
    if not chosen[:cut].strip():
        raise PairsError(
            "chosen and rejected share no beginning, and there is no column 'prompt'",
            found=f"{shown(chosen)} and {shown(rejected)}",
            expected="a prompt of at least one word that both texts begin with",
            do='add a prompt, or say which column it is: columns={"prompt": ...}',
        )
    return chosen[:cut], chosen[cut:], rejected[cut:]
