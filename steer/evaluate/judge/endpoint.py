"""Any OpenAI-compatible endpoint as judge, through the standard client."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from steer.errors import JudgeError, MissingExtraError, SelectionError
from steer.evaluate.judge.protocol import Verdict, filled
from steer.evaluate.judge.verdicts import said
from steer.pairs import Prompt

_ROUND = " \t\r\n.,;:!?\"'`*()[]"  # what may stand around a label in a reply
_SHOWN = 200  # characters of a reply that are shown
_TURNED_DOWN = (400, 413, 422)  # statuses that are about one request, not about the endpoint
_TEXT = ("text", "output_text")  # parts of a content that are said, not thought


def after_thinking(reply: str) -> str:
    """Return a reply without what a reasoning model thought aloud before it.

    Args:
        reply: The reply.
    """
    return reply.rpartition("</think>")[2]


@dataclass(frozen=True, slots=True)
class EndpointJudge:
    """Asks a served model about an answer; its reply must be one of the labels.

    Upper and lower case and marks around the label do not count, nor what a reasoning model thinks
    aloud before it (up to `</think>`). Any other reply, a refusal or an empty one leaves the answer
    undecided, and is kept. The client retries broken connections, time outs, rate limits (as long
    as the server asks it to wait) and server errors. If the endpoint is not reached at the first
    question, nothing else is asked. A later failure, and a question that the server itself turns
    down (its filter, or its length), is kept as an error, and can be asked `again`.

    Args:
        model: Name of the served model.
        question: The question, with `{prompt}` and `{answer}` where they belong.
        labels: The replies allowed, at least two.
        base_url: Of the endpoint, for instance `http://localhost:8000/v1`; None leaves it to the
            client (`OPENAI_BASE_URL`, else the service of OpenAI).
        api_key: Key; None leaves it to the client (`OPENAI_API_KEY`). Local servers take any text.
        timeout: Seconds that one request may take.
        retries: How often a request is repeated.
        workers: Requests under way at the same time, at most.
        options: Passed on with every request.
        parse: From a reply to the text that must be a label, or None for undecided; by default what
            comes after the thinking.

    Raises:
        SelectionError: Fewer than two labels, a question without `{answer}`, or no worker.
    """

    model: str
    question: str
    labels: Sequence[str]
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 4
    workers: int = 4
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.0})
    parse: Callable[[str], str | None] = field(default=after_thinking, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        different = {_plain(label) for label in self.labels}
        if len(different) < max(2, len(self.labels)) or "{answer}" not in self.question:
            raise SelectionError(
                "an endpoint cannot be asked this",
                found=f"labels {self.labels!r} for {self.question!r}",
                expected="at least two labels that differ, and {answer} in the question",
                do="EndpointJudge('name', 'Is this polite? {answer}', ['yes', 'no'])",
            )
        if self.workers < 1 or self.retries < 0 or self.timeout <= 0:
            raise SelectionError(
                "an endpoint cannot be asked like this",
                found=f"{self.workers} workers, {self.retries} retries, timeout {self.timeout} s",
                expected="at least one worker, no negative number of retries, some time",
                do="leave the defaults",
            )

    def __call__(self, prompt: Prompt, answer: str, /) -> Verdict:
        """Return the label of an answer; the reply is what the endpoint said.

        Args:
            prompt: What was asked.
            answer: What the model answered.

        Raises:
            MissingExtraError: The client is not installed.
            JudgeError: The endpoint cannot be asked.
        """
        return self.many([prompt], [answer])[0]

    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Verdict]:
        """Return the label of each answer, several asked at the same time.

        Args:
            prompts: What was asked, one for each answer.
            answers: What the model answered.

        Raises:
            MissingExtraError: The client is not installed.
            JudgeError: The endpoint is not reached at the first question.
        """
        asked = [filled(self.question, p, a) for p, a in zip(prompts, answers, strict=True)]
        openai = _client_library()
        try:
            client = openai.OpenAI(
                base_url=self.base_url,
                api_key=self.api_key,
                timeout=self.timeout,
                max_retries=self.retries,
            )
        except openai.OpenAIError as error:
            raise self._unreachable(said(error)) from error
        ask = partial(self._ask, client, openai.OpenAIError)
        found: list[Verdict] = []
        with client:
            for text in asked:  # one by one until one does not fail by itself
                verdict, alone = ask(text)
                if verdict.error is not None and not alone:
                    raise self._unreachable(verdict.error)
                found.append(verdict)
                if not alone:
                    break
            with ThreadPoolExecutor(self.workers) as pool:
                found += [verdict for verdict, _ in pool.map(ask, asked[len(found) :])]
        return found

    def _ask(self, client: Any, failure: type[Exception], text: str) -> tuple[Verdict, bool]:
        """Return the verdict of one request, and whether it failed alone: others may not."""
        listed = ", ".join(self.labels)
        rule = f"Reply with exactly one of the following, and nothing else: {listed}"
        messages = [{"role": "system", "content": rule}, {"role": "user", "content": text}]
        try:
            completion = client.chat.completions.create(
                model=self.model, messages=messages, **self.options
            )
        except (failure, ValueError) as error:  # ValueError: a body that is no JSON
            alone = getattr(error, "status_code", None) in _TURNED_DOWN
            return Verdict(None, error=said(error)), alone
        reply = _reply(completion)
        if reply is None:
            return Verdict(None, error=f"no chat completion: {completion!r}"[:_SHOWN]), False
        try:
            return Verdict(self._label(self.parse(reply)), reply=reply), False
        except Exception as error:  # noqa: BLE001  # of the user's function, about this reply
            return Verdict(None, reply=reply, error=said(error)), True

    def _label(self, text: str | None) -> str | None:
        if text is None:
            return None
        return next((label for label in self.labels if _plain(label) == _plain(text)), None)

    def _unreachable(self, found: str) -> JudgeError:
        return JudgeError(
            f"the judge {self.model!r} at {self.base_url or 'the default endpoint'} did not answer",
            found=found,
            expected="a chat completion",
            do="check base_url (with its /v1), api_key, the model's name, and timeout",
        )


def _reply(completion: Any) -> str | None:
    """Return what was said, or why it was refused; None if this is no chat completion."""
    try:
        message = completion.choices[0].message
        text = message.content or message.refusal or ""
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part["type"] in _TEXT)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _plain(text: str) -> str:
    return text.strip(_ROUND).casefold()


def _client_library() -> Any:
    try:
        return import_module("openai")
    except ImportError as error:
        raise MissingExtraError(
            "a judge at an endpoint needs the OpenAI client",
            found="it is not installed",
            expected="the extra 'judge'",
            do="pip install 'residual-steer[judge]'",
        ) from error
