"""vLLM in this process: a batch whose prompts each have their own coefficients."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list, need
from steer.algebra import CoefficientsLike, Composition, as_composition
from steer.algebra._coefficients import coefficient_rows
from steer.algebra._composition import Steerable
from steer.algebra._file.folder import save_by_domain
from steer.algebra._hub.repository import settled
from steer.engine import Batch
from steer.errors import CapabilityError, RowsError
from steer.model import exchange_batch, prompt_batch
from steer.model._loading.load import load_tokenizer
from steer.model._loading.location import located
from steer.network import Chat, Continuation, PromptLike
from steer.serving._folder import digest
from steer.serving._plugin import KEY

_DEFAULTS = ("repetition_penalty", "top_p", "top_k", "min_p")  # of the model's generation config
Document = dict[str, Any] | None  # the setting of a request, as the plugin reads it


class VLLM:
    """A model in vLLM, with vectors that each prompt of a batch can have at its own coefficients.

    Texts become the same tokens as in `Model`. An engine starts for tens of seconds and keeps its
    memory until `close`, or the end of its context.

    Args:
        model: Hub id or folder of the model.
        what: What to steer with, as `Model.steered` takes it. The vectors stay those; coefficients
            differ in each call, and scopes by `at`.
        chat_template_kwargs: As for `Model`.
        **options: As for `vllm.LLM`: `dtype`, `max_model_len`, `tensor_parallel_size`, …

    Raises:
        MissingExtraError: vLLM is not installed; no extra installs it.
        CapabilityError: The engine, a vector or a gate cannot be served.
    """

    def __init__(
        self,
        model: str | Path,
        what: Steerable,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        need("steer.serving.VLLM", "vllm")
        from vllm import LLM

        from steer.serving._plugin import register

        self.composition = self._loaded = as_composition(what)
        _check_ungated(self._loaded)
        own = {name: options[name] for name in ("revision",) if name in options}
        self.chat = Chat(load_tokenizer(located(model, own)), chat_template_kwargs or {})
        self.model_id = str(model)
        register()
        given = options.pop("additional_config", {})
        with TemporaryDirectory(prefix="steer-vectors-") as folder:
            save_by_domain(settled(self._loaded), folder)
            steered = {**given.get(KEY, {}), "vectors": folder}
            self.llm = LLM(self.model_id, additional_config={**given, KEY: steered}, **options)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self.llm.llm_engine.engine_core.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def at(self, what: Steerable) -> "VLLM":
        """Return the same engine with other coefficients and scopes of its vectors.

        Args:
            what: A composition of the engine's vectors, or of some of them.

        Raises:
            CapabilityError: It has other vectors or operators, a gate, or several scopes that are
                not those that the engine was started with.
        """
        found = copy.copy(self)
        found.composition = as_composition(what)
        _scope(self._loaded, found.composition)
        return found

    def generate(
        self,
        prompts: Sequence[PromptLike],
        coefficients: CoefficientsLike | None = None,
        *,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> list[str]:
        """Generate an answer to each prompt; greedy unless a `temperature` is given.

        Args:
            prompts: Texts or sequences of messages, as `Model.generate` takes them.
            coefficients: One setting for all, or one row per prompt; None takes those of the
                composition.
            max_new_tokens: Longest answer.
            **options: As for `vllm.SamplingParams`: `temperature`, `stop`, … A `seed` is that
                of the first prompt; each later one has the next.

        Returns:
            The answers, without special tokens.

        Raises:
            TextError: A prompt cannot be rendered.
            RowsError: The numbers of rows and prompts differ.
            CapabilityError: A seed on a CPU.
        """
        batch = prompt_batch(self.chat, as_list("prompts", prompts))
        asked = self.documents(coefficients, len(batch.ids))
        found = self.complete(batch.ids, asked, max_tokens=max_new_tokens, **options)
        decode = self.chat.tokenizer.decode
        return [Continuation(decode(ids, skip_special_tokens=True)) for ids in found]

    def logprobs(
        self,
        prompts: Sequence[PromptLike],
        responses: Sequence[str],
        coefficients: CoefficientsLike | None = None,
    ) -> list[Float[Tensor, " pos"]]:
        """Return the log-probability of each given response token, in nats.

        Args:
            prompts: One prompt per response.
            responses: The responses, scored as the assistant's turn.
            coefficients: One setting for all, or one row per response; None takes those of the
                composition.

        Returns:
            For each response, one value per token.

        Raises:
            TextError: The numbers differ, or a response has no token.
            RowsError: The numbers of rows and prompts differ.
        """
        texts = as_list("prompts", prompts), as_list("responses", responses)
        batch = exchange_batch(self.chat, *texts)
        asked = self.documents(coefficients, len(batch.ids))
        return [torch.tensor([p for p, _ in row]) for row in self.score(batch, asked)]

    def documents(self, coefficients: CoefficientsLike | None, count: int) -> list[Document]:
        """Return the setting of each of some requests, None where nothing is steered."""
        scope, rows = _scope(self._loaded, self.composition), self.composition.coefficients
        if coefficients is not None:
            rows, _ = coefficient_rows(coefficients, self.composition.domains)
        if len(rows) not in (1, count):
            raise RowsError(
                "coefficient rows and prompts differ in number",
                found=f"{len(rows)} rows for {count} prompts",
                expected="one row per prompt",
                do="give one row per prompt, or one setting for all of them",
            )
        found: list[Document] = []
        for row in rows.expand(count, -1).tolist():
            named = {d: c for d, c in zip(self.composition.domains, row, strict=True) if c}
            found.append({"coefficients": named, "scope": scope} if named else None)
        return found

    def complete(
        self, ids: Sequence[Sequence[int]], asked: Sequence[Document], **options: Any
    ) -> list[list[int]]:
        """Return the tokens that follow each text, under the setting of each."""
        default = self.llm.get_default_sampling_params()
        own = {name: getattr(default, name) for name in _DEFAULTS}
        outputs = self._run(ids, asked, **{**own, "temperature": 0.0, **options})
        return [list(output.outputs[0].token_ids) for output in outputs]

    def score(self, batch: Batch, asked: Sequence[Document]) -> list[list[tuple[float, int]]]:
        """Return the log-probability and the rank of each response token, under each setting.

        vLLM reads no cached prefix for such a request, so that every token is computed. It counts
        the whole text as prompt, so that the setting says where the prompt ends.
        """
        told = [
            None if document is None else {**document, "prompt_length": length}
            for document, length in zip(asked, batch.prompt_lengths, strict=True)
        ]
        outputs = self._run(
            batch.ids, told, max_tokens=1, prompt_logprobs=0, detokenize=False, temperature=0.0
        )
        found = []
        for output, ids, start in zip(outputs, batch.ids, batch.prompt_lengths, strict=True):
            tokens = [output.prompt_logprobs[k][ids[k]] for k in range(start, len(ids))]
            found.append([(token.logprob, token.rank) for token in tokens])
        return found

    def _run(
        self, ids: Sequence[Sequence[int]], asked: Sequence[Document], **options: Any
    ) -> list[Any]:
        from vllm import SamplingParams

        seed = options.pop("seed", None)
        if options["temperature"] == 0:
            seed = None  # greedy answers need none
        if seed is not None:
            _check_seeds()
        parameters = [
            SamplingParams(
                **options,
                seed=None if seed is None else seed + k,
                extra_args=None if document is None else {KEY: document},
            )
            for k, document in enumerate(asked)
        ]
        prompts = [{"prompt_token_ids": list(row)} for row in ids]
        return list(self.llm.generate(prompts, parameters, use_tqdm=False))


def _scope(loaded: Composition, asked: Composition) -> str | None:
    """Return the scope that a composition's requests name, None where each vector has its own."""
    _check_ungated(asked)
    for domain, part in asked.parts.items():
        own = loaded.parts.get(domain)
        same = own is not None and (
            own.vector is part.vector or digest(own.vector) == digest(part.vector)
        )
        if own is None or not same or own.operator != part.operator:
            raise CapabilityError(
                "this engine was started with other vectors",
                found=f"{domain}: {part.vector!r}, {part.operator}"[:200],
                expected=", ".join(loaded.domains),
                do="pass the composition that VLLM was given, or start one with these vectors",
            )
    scopes = {domain: part.scope for domain, part in asked.parts.items()}
    if all(loaded.parts[domain].scope == scope for domain, scope in scopes.items()):
        return None
    if len(set(scopes.values())) > 1:
        raise CapabilityError(
            "a request of vLLM has one scope",
            found=", ".join(f"{domain}: {scope}" for domain, scope in scopes.items())[:200],
            expected="the scopes that the engine was started with, or one for all domains",
            do="start an engine with these scopes",
        )
    return str(next(iter(scopes.values())))


def _check_seeds() -> None:
    """Refuse seeds on a CPU: the engine would die where a seeded prompt is read in chunks."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        raise CapabilityError(
            "vLLM on a CPU cannot draw from a seed of a request",
            found="a seed and a temperature above 0",
            expected="temperature 0, no seed, or a GPU",
            do="generate greedily, or sample with steer.Model",
        )


def _check_ungated(composition: Composition) -> None:
    if composition.gate is not None:
        raise CapabilityError(
            "a gate cannot act in vLLM",
            found="a composition with a gate",
            expected="none",
            do="use knobs.gated(None), or steer.Model",
        )
