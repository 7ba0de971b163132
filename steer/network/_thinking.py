"""Answers after a chat template that opens a block for the model to fill, such as `<think>`."""

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
_CLOSED = re.compile(rf"({_TAG})\s*[<[◁]/[\w:.-]+[>\]▷]\s*\Z")
_THINKING = re.compile(r"[<[◁](seed:)?(think|thinking|thought|reason|reasoning)[>\]▷]", re.I)
_SAMPLE = "A"


class Continuation(str):
    """A text that a model wrote directly after a prompt, as `lm.generate` returns it.

    If the chat template opens a block, the model continues inside it, so a continuation is never
    moved behind the end of the block.
    """

    __slots__ = ()


def before_and_answer(chat: Chat, prompt: Prompt, before: str, response: str) -> tuple[str, str]:
    """Return the text before an answer, and the answer as it follows that text.

    A block that the template opens is closed before a plain answer. An answer that contains the
    block fills the opened one, and an answer that closes it starts inside.
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
    """Return `before_and_answer` for a rendered prompt that ends with an opening mark."""
    opening, space = found.groups()
    closing = _MARKS.get(opening) or f"{opening[0]}/{opening[1:]}"
    finished, end = _finished(chat, messages), found.end(1)
    closes_itself = finished.startswith(before[:end]) and closing in finished[end:]
    known = opening in _MARKS or _THINKING.fullmatch(opening) is not None
    if not known and not closes_itself and finished.startswith(before):
        return before, response  # the mark is the header of every answer
    bare = response.lstrip()
    if bare.startswith(opening):
        return before, bare[len(opening) :].removeprefix(space)
    if closing in response:
        return before, response
    if closes_itself:
        return finished, response
    if known:
        return f"{before}{space}{closing}{space}{space}", response
    raise TextError(
        "the chat template opens a block, and the answer does not say whether it belongs there",
        found=f"{opening} at the end of the prompt, and the answer {response[:60]!r}",
        expected=f"an answer that begins with {opening} or contains {closing}",
        do="write the block into the answer as the model does, or pass chat_template_kwargs to "
        "the model that keep the template from opening one",
    )


def _of_the_template(
    chat: Chat, messages: Sequence[Message], before: str, found: re.Match[str]
) -> bool:
    """Return whether the opening mark comes from the template and not from a message."""
    shut = rendered(chat, messages, continued=False, opened=False)
    if common_prefix_length(before, shut) < found.end(1):
        return True
    sample = (*messages[:-1], Message(messages[-1].role, _SAMPLE))
    return rendered(chat, sample, continued=False, opened=True).endswith(found.group())


def _finished(chat: Chat, messages: Sequence[Message]) -> str:
    """Return the text before an answer that is part of the conversation; empty if refused."""
    answered = (*messages, Message("assistant", _SAMPLE))
    try:
        text = rendered(chat, answered, continued=True, opened=False)
    except TextError:
        return ""
    return text.removesuffix(_SAMPLE) if text.endswith(_SAMPLE) else ""


def _check_not_closed(before: str, response: str) -> None:
    """Refuse an answer that opens a block that the template has already opened and closed."""
    found = _CLOSED.search(before)
    if found is None or not _THINKING.fullmatch(found.group(1)):
        return
    if response.lstrip().startswith(found.group(1)):
        raise TextError(
            "the answer opens a block that the chat template has closed already",
            found=f"{found.group().strip()!r} at the end of the prompt, and {response[:60]!r}",
            expected="one block: the template's or the answer's",
            do="leave the block out of the answer, or pass chat_template_kwargs to the model that "
            "keep the template from writing one",
        )
