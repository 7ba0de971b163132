"""Any OpenAI-compatible endpoint as judge, through the standard client."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from steer.errors import JudgeError, SelectionError
from steer.measure._judge.client import Heard, replies
from steer.measure._judge.keys import keys_of, masked, masked_address, masked_values
from steer.measure._judge.protocol import Verdict, filled
from steer.measure._judge.verdicts import said
from steer.pairs import Prompt

_ROUND = " \t\r\n.,;:!?\"'`*()[]"  # what may stand around a label in a reply


def after_thinking(reply: str) -> str:
    """Return a reply without what a reasoning model thought aloud before it.

    Args:
        reply: The reply.
    """
    return reply.rpartition("</think>")[2]


@dataclass(frozen=True, slots=True, repr=False)
class EndpointJudge:
    """Asks a served model about an answer; its reply must be one of the labels.

    Upper and lower case and marks around the label do not count, nor what a reasoning model thinks
    aloud before it (up to `</think>`). Any other reply, a refusal or an empty one leaves the answer
    undecided, and is kept. The client retries broken connections, time outs, rate limits (as long
    as the server asks it to wait) and server errors. If the endpoint is not reached at the first
    question, nothing else is asked. A later failure is kept as an error and can be asked `again`;
    so is what concerns one question alone: the server turns it down (its filter, or its length),
    it cannot be sent, or the reply is nested too deeply or longer than 8 MiB.

    Every reply, error and repr has `***` in place of the keys that are known: `api_key`, the
    client's variables in the environment, user, password and keys in `base_url`, and the values in
    `options` that are named like a key. Keys of fewer than six characters are taken for
    placeholders and masked in `base_url` and `options` only.

    Args:
        model: Name of the served model.
        question: The question, with `{prompt}` and `{answer}` where they belong.
        labels: The replies allowed, at least two.
        base_url: Of the endpoint, for instance `http://localhost:8000/v1`; None leaves it to the
            client (`OPENAI_BASE_URL`, else the service of OpenAI).
        api_key: Key; None leaves it to the client (`OPENAI_API_KEY`). Local servers take any text.
        timeout: Seconds from the beginning of one request to the last byte of its reply; a repeated
            request has as many again.
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
        if self.workers < 1 or self.retries < 0 or not 0 < self.timeout < math.inf:
            raise SelectionError(
                "an endpoint cannot be asked like this",
                found=f"{self.workers} workers, {self.retries} retries, timeout {self.timeout} s",
                expected="a worker or more, no negative number of retries, a finite time above 0",
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
        mask = partial(masked, keys=self._keys())
        settings = {"base_url": self.base_url, "api_key": self.api_key}
        found = replies(
            settings | {"timeout": self.timeout, "max_retries": self.retries},
            [self._request(text) for text in asked],
            timeout=self.timeout,
            workers=self.workers,
            mask=mask,
        )
        last = found[-1] if found else Heard()
        if last.error is not None and not last.alone:
            raise self._unreachable(last.error)
        return [self._verdict(heard, mask) for heard in found]

    def _request(self, text: str) -> dict[str, Any]:
        rule = "Reply with exactly one of the following, and nothing else: "
        rule += ", ".join(self.labels)
        messages = [{"role": "system", "content": rule}, {"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, **self.options}

    def _verdict(self, heard: Heard, mask: Callable[[str], str]) -> Verdict:
        """Return the label of a reply, read before keys are masked in it."""
        if heard.reply is None:
            return Verdict(None, error=heard.error)
        reply = mask(heard.reply)
        try:
            return Verdict(self._label(self.parse(heard.reply)), reply=reply)
        except Exception as error:  # noqa: BLE001  # of the user's function, about this reply
            return Verdict(None, reply=reply, error=said(error, mask))

    def _label(self, text: str | None) -> str | None:
        if text is None:
            return None
        return next((label for label in self.labels if _plain(label) == _plain(text)), None)

    def _keys(self) -> tuple[str, ...]:
        """Return the keys that the client knows, from the arguments and from the environment."""
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
