"""An OpenAI-compatible endpoint as judge, through the standard client."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from steer._check import integer, number
from steer.errors import JudgeError
from steer.measure._judge.client import RequestOutcome, ask_all
from steer.measure._judge.keys import keys_of, masked, masked_address, masked_values
from steer.measure._judge.protocol import BatchJudge, Verdict, check_question, filled
from steer.measure._judge.verdicts import error_line
from steer.pairs import Prompt

_ROUND = " \t\r\n.,;:!?\"'`*()[]"  # what may stand around a label in a reply


def after_thinking(reply: str) -> str:
    """Return a reply without the reasoning before it."""
    return reply.rpartition("</think>")[2]


@dataclass(frozen=True, slots=True, repr=False)
class EndpointJudge(BatchJudge):
    """Asks a served model about an answer; its reply must be one of the labels.

    Case and punctuation around the label are ignored, and so is the reasoning before it (up to
    `</think>`). Any other reply, a refusal or an empty one leaves the answer undecided, and is
    kept. The client retries broken connections, timeouts, rate limits (waiting as long as the
    server asks) and server errors. If the first question does not reach the endpoint, no other is
    asked. A later failure is kept as an error and can be asked `again`; so is a failure of one
    question alone: the server rejects it (its filter, or its length), it cannot be sent, or the
    reply is nested too deeply or longer than 8 MiB.

    Replies, errors and the repr show `***` for every known key: `api_key`, the client's environment
    variables, user, password and keys in `base_url`, and the values in `options` that are named
    like a key. Keys of fewer than six characters count as placeholders and are masked in `base_url`
    and `options` only.

    Args:
        model: Name of the served model.
        question: The question, with `{prompt}` and `{answer}` where they belong.
        labels: The replies allowed, at least two.
        base_url: URL of the endpoint, for instance `http://localhost:8000/v1`; None leaves it to
            the client (`OPENAI_BASE_URL`, else OpenAI's service).
        api_key: Key; None leaves it to the client (`OPENAI_API_KEY`). Local servers accept any
            text.
        timeout: Seconds from the start of a request to the last byte of its reply; each retry has
            as many again.
        retries: Maximum number of retries of a request.
        workers: Maximum number of concurrent requests.
        options: Passed on with every request.
        parse: From a reply to the text that must be a label, or None for undecided; by default the
            text after the reasoning.

    Raises:
        ArgumentError: Fewer than two labels, a question without `{answer}`, no worker, a negative
            number of retries, or a timeout that is not a finite number above 0.
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
        example = "EndpointJudge('name', 'Is this polite? {answer}', ['yes', 'no'])"
        different = {_plain(label) for label in self.labels}
        check_question(self.question, self.labels, len(different), example)
        integer("workers", self.workers, least=1)
        integer("retries", self.retries, least=0)
        number("timeout", self.timeout, above=0)

    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Verdict]:
        """Return the label of each answer, asking several at the same time.

        Args:
            prompts: The prompts, one for each answer.
            answers: The model's answers.

        Raises:
            MissingExtraError: The client is not installed.
            JudgeError: The first question does not reach the endpoint.
        """
        asked = [filled(self.question, p, a) for p, a in zip(prompts, answers, strict=True)]
        mask = partial(masked, keys=self._keys())
        settings = {"base_url": self.base_url, "api_key": self.api_key}
        found = ask_all(
            settings | {"timeout": self.timeout, "max_retries": self.retries},
            [self._request(text) for text in asked],
            timeout=self.timeout,
            workers=self.workers,
            mask=mask,
        )
        *before, last = found or [RequestOutcome()]
        if last.error is not None and not last.alone and all(outcome.alone for outcome in before):
            raise self._unreachable(last.error)
        return [self._verdict(outcome, mask) for outcome in found]

    def _request(self, text: str) -> dict[str, Any]:
        rule = "Reply with exactly one of the following, and nothing else: "
        rule += ", ".join(self.labels)
        messages = [{"role": "system", "content": rule}, {"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, **self.options}

    def _verdict(self, outcome: RequestOutcome, mask: Callable[[str], str]) -> Verdict:
        """Return the label of a reply, read before keys are masked in it."""
        if outcome.reply is None:
            return Verdict(None, error=outcome.error)
        reply = mask(outcome.reply)
        try:
            return Verdict(self._label(self.parse(outcome.reply)), reply=reply)
        except Exception as error:  # noqa: BLE001  # raised by the user's function on this reply
            return Verdict(None, reply=reply, error=error_line(error, mask))

    def _label(self, text: str | None) -> str | None:
        if text is None:
            return None
        return next((label for label in self.labels if _plain(label) == _plain(text)), None)

    def _keys(self) -> tuple[str, ...]:
        """Return the keys in the arguments and in the environment."""
        outside = {name: text for name, text in os.environ.items() if name.startswith("OPENAI_")}
        named = {"api_key": self.api_key, "options": self.options, **outside}
        return keys_of(named, [self.base_url, outside.get("OPENAI_BASE_URL")])

    def __repr__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        shown["options"] = masked_values(dict(self.options))
        shown["base_url"] = self._address()
        given = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return masked(f"{type(self).__name__}({given})", self._keys())

    def _address(self) -> str | None:
        return None if self.base_url is None else masked_address(str(self.base_url))

    def _unreachable(self, found: str) -> JudgeError:
        at = masked(self._address() or "the default endpoint", self._keys())
        return JudgeError(
            f"the judge {self.model!r} at {at} did not answer",
            found=found,
            expected="a chat completion",
            do="check base_url (with its /v1), api_key, the model's name, and timeout",
        )


def _plain(text: str) -> str:
    return text.strip(_ROUND).casefold()
