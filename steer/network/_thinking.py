"""Answers after a chat template that opens a block, such as `<think>`, for the model to fill."""

import re
from collections.abc import Sequence

from steer.errors import TextError
from steer.network._chat import Chat, rendered
from steer.pairs import Message, Prompt
from steer.pairs._common_prefix import common_prefix_length
from steer.pairs._pair import messages_of

_MARKS = {  # opening → closing marks that are no tags
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
}
_TAG = r"<[\w:.-]+>|\[[\w:.-]+\]|◁[\w:.-]+▷"
_OPENED = re.compile(rf"({'|'.join([_TAG, *map(re.escape, _MARKS)])})(\s*)\Z")
_CLOSED = re.compile(r"(<[\w:.-]+>|\[[\w:.-]+\]|◁[\w:.-]+▷)\s*[<[◁]/[\w:.-]+[>\]▷]\s*\Z")
_THINKING = re.compile(r"[<[◁](seed:)?(think|thinking|thought|reason|reasoning)[>\]▷]", re.I)
_SAMPLE = "A"


class Continuation(str):
    """A text that a model wrote after a prompt: it follows the prompt to the letter.

    `lm.generate` returns such texts. Where the chat template opens a block, the model writes on
    inside that block, so a continuation is never moved behind its end.
    """

    __slots__ = ()


def before_and_answer(chat: Chat, prompt: Prompt, before: str, response: str) -> tuple[str, str]:
    """Return the text before an answer, and the answer as it stands after that text.

    A block that the template opens is closed before a plain answer. An answer that brings the block
    fills the opened one, and one that closes it goes on inside.
    """
    messages = messages_of(prompt)
    if not chat.has_template:
        begun = messages[-1].role == "assistant" and messages[-1].content
        return before, response if begun else f" {response}"
    if isinstance(response, Continuation) or messages[-1].role == "assistant":
        return before, response
    _check_not_closed(before, response)
    found = _OPENED.search(before)
    if found is None or not _of_the_template(chat, messages, before, found):
        return before, response
    return _around(chat, messages, before, found, response)


def _around(
    chat: Chat, messages: Sequence[Message], before: str, found: re.Match[str], response: str
) -> tuple[str, str]:
    """Return `before_and_answer` where the rendered prompt ends with an opening mark."""
    opening, space = found.groups()
    closing = _closing(opening)
    finished = _finished(chat, messages)
    closed = finished is not None and closing in finished[len(before[: found.end(1)]) :]
    closes_itself = closed and finished is not None and finished.startswith(before[: found.end(1)])
    known = opening in _MARKS or _THINKING.fullmatch(opening) is not None
    if not known and not closes_itself and finished is not None and finished.startswith(before):
        return before, response  # the mark is the header of every answer
    bare = response.lstrip()
    if bare.startswith(opening):
        return before, bare[len(opening) :].removeprefix(space)
    if closing in response:
        return before, response
    if closes_itself and finished is not None:
        return finished, response
    if known:
        return f"{before}{space}{closing}{space}{space}", response
    raise TextError(
        "the chat template opens a block, and the answer does not say whether it belongs there",
        found=f"{opening} at the end of the prompt, and the answer {response[:60]!r}",
        expected=f"an answer that begins with {opening}, or holds {closing}",
        do="write the block into the answer as the model does, or pass chat_template_kwargs to "
        "the model with which the template opens none",
    )


def _of_the_template(
    chat: Chat, messages: Sequence[Message], before: str, found: re.Match[str]
) -> bool:
    """Return whether the template, and not a message, wrote the opening mark."""
    shut = rendered(chat, messages, continued=False, opened=False)
    if common_prefix_length(before, shut) < found.end(1):
        return True
    sample = (*messages[:-1], Message(messages[-1].role, _SAMPLE))
    return rendered(chat, sample, continued=False, opened=True).endswith(found.group())


def _finished(chat: Chat, messages: Sequence[Message]) -> str | None:
    """Return what the template writes before a plain answer that is already there."""
    answered = (*messages, Message("assistant", _SAMPLE))
    try:
        text = rendered(chat, answered, continued=True, opened=False)
    except TextError:
        return None
    return text.removesuffix(_SAMPLE) if text.endswith(_SAMPLE) else None


def _check_not_closed(before: str, response: str) -> None:
    """Refuse an answer that opens a block which the template has opened and closed already."""
    found = _CLOSED.search(before)
    if found is None or not _THINKING.fullmatch(found.group(1)):
        return
    if response.lstrip().startswith(found.group(1)):
        raise TextError(
            "the answer opens a block that the chat template has closed already",
            found=f"{found.group().strip()!r} at the end of the prompt, and {response[:60]!r}",
            expected="one block: the template's or the answer's",
            do="leave the block out of the answer, or pass chat_template_kwargs to the model with "
            "which the template writes none",
        )


def _closing(opening: str) -> str:
    return _MARKS.get(opening) or f"{opening[0]}/{opening[1:]}"
