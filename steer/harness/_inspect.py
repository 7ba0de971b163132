"""A model provider for Inspect: `steer/MODEL`, with vectors and coefficients as model arguments.

Inspect imports this module through the entry point `inspect_ai`; nothing in the package does.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from anyio import to_thread
from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi

from steer.algebra import Composition, Part, Vector, as_composition, compose
from steer.algebra._file.named import recommended, vectors_by_name
from steer.errors import ArgumentError, CapabilityError
from steer.model import Model
from steer.model._random_state import random_state_put_back

_MAX_TOKENS = 64  # where Inspect names no limit, as in `Model.generate`
_REFUSED = ("logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "response_schema")


@modelapi(name="steer")
class SteeredAPI(ModelAPI):  # type: ignore[misc]  # a class of a package without types
    """A model that Inspect calls by the name `steer/MODEL`.

    Args:
        model_name: Hub id, folder or GGUF file of the model.
        base_url: Inspect passes it to every provider; unused.
        api_key: Inspect passes it to every provider; unused.
        config: Inspect's defaults for generation.
        vector: One vector file or several, or what `Model.steered` takes; None leaves the model
            unsteered.
        coefficients: One number, one per domain, or a mapping by domain. None takes the coefficient
            that each file recommends, and 1 where it recommends none.
        **model_args: Passed on to `Model.from_pretrained`.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: Any = None,
        *,
        vector: str | Path | Sequence[str | Path] | Vector | Part | Composition | None = None,
        coefficients: float | Sequence[float] | Mapping[str, float] | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.composition = _composition(vector, coefficients)
        self.model = Model.from_pretrained(model_name, **model_args)
        self._lock = threading.Lock()

    def max_connections(self) -> int:
        """Return 1: the model answers one conversation at a time."""
        return 1

    async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
        """Return the steered model's answer to a conversation."""
        _check_supported(input, tools, config)
        messages = [{"role": message.role, "content": message.text} for message in input]
        return await to_thread.run_sync(self._answer, messages, config)

    def _answer(self, messages: list[dict[str, str]], config: Any) -> Any:
        limit = config.max_tokens or _MAX_TOKENS
        count = _Count()
        knobs = self.composition
        steered = nullcontext() if knobs is None else self.model.steered(knobs)
        with self._lock, _seeded(config.seed), steered:
            (text,) = self.model.generate(
                [messages], max_new_tokens=limit, stopping_criteria=[count], **_options(config)
            )
        cut = count.new >= limit and not count.ended(self.model.hf_model)
        output = ModelOutput.from_content(self.model_name, text, "max_tokens" if cut else "stop")
        output.usage = ModelUsage(
            input_tokens=count.prompt,
            output_tokens=count.new,
            total_tokens=count.prompt + count.new,
        )
        return output


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed and put the random state back; without one, go on from where it is."""
    if seed is None:
        yield
        return
    with random_state_put_back():
        torch.manual_seed(seed)
        yield


class _Count:
    """A stopping criterion that stops nothing and counts the tokens of one row."""

    prompt = new = 0
    last: int | None = None

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.prompt = self.prompt or ids.shape[1] - 1
        self.new, self.last = ids.shape[1] - self.prompt, int(ids[0, -1])
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    def ended(self, hf_model: Any) -> bool:
        """Return whether the last token ends a text."""
        ends = hf_model.generation_config.eos_token_id
        return self.last in (ends if isinstance(ends, list) else [ends])


def _composition(vector: Any, coefficients: Any) -> Composition | None:
    """Return the composition that two model arguments ask for."""
    if vector is None:
        if coefficients is None:
            return None
        raise ArgumentError(
            "coefficients need a vector",
            found=f"vector=None, coefficients={coefficients!r}"[:120],
            expected="a vector file to multiply them with",
            do="pass vector=FILE (-M vector=FILE), or leave coefficients out",
        )
    paths = [vector] if isinstance(vector, str | Path) else vector
    if not isinstance(paths, list | tuple):
        composition = as_composition(vector)
        return composition if coefficients is None else composition(coefficients)
    loaded = vectors_by_name(paths)
    return compose(loaded)(recommended(loaded) if coefficients is None else coefficients)


def _options(config: Any) -> dict[str, Any]:
    """Return Inspect's options as `Model.generate` takes them; greedy unless one asks to sample."""
    options: dict[str, Any] = {"stop_strings": config.stop_seqs} if config.stop_seqs else {}
    given = {name: getattr(config, name) for name in ("temperature", "top_p", "top_k")}
    given = {name: value for name, value in given.items() if value is not None}
    if given and given.get("temperature") != 0:
        options |= {"do_sample": True, **given}
    return options


def _check_supported(messages: Any, tools: Any, config: Any) -> None:
    """Refuse what a text model that generates one answer cannot do."""
    asked = [name for name in _REFUSED if getattr(config, name, None)]
    asked += ["num_choices"] * ((config.num_choices or 1) > 1) + ["tools"] * bool(tools)
    parts = [part for m in messages if not isinstance(m.content, str) for part in m.content]
    asked += sorted({f"{part.type} in a message" for part in parts if part.type != "text"})
    if asked:
        raise CapabilityError(
            "a steered model does not do this for Inspect",
            found=", ".join(asked),
            expected="messages of text, and one answer of text",
            do="leave these out of the task or of its configuration",
        )
