"""The model that lm-eval calls: ours, steered by whatever steers it at the time."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steer._progress import progress_bar
from steer.engine import Batch
from steer.errors import HarnessError, ScopeError
from steer.model import Model
from steer.serving import VLLM

Request = tuple[Any, list[int], list[int]]  # texts, ids of the context, ids of the continuation
_TOKENS = 4096  # tokens of one forward when scoring
_TOGETHER = 4096  # texts that vLLM is asked to write at once; it schedules them itself


def language_model(
    model: Model | VLLM,
    *,
    batch_size: int,
    chat: bool,
    rolling: bool,
    label: str,
    progress: bool,
    seed: int = 0,
) -> Any:
    """Return a model as lm-eval takes it, an `lm_eval.models.huggingface.HFLM`.

    lm-eval's own class generates texts, through the model's `generate`. The library's engine, which
    knows where each context ends, computes likelihoods, so that every scope and gate applies. Of a
    model in vLLM lm-eval reads the configuration only.
    """
    from lm_eval.models.huggingface import HFLM

    class SteeredLM(HFLM):  # type: ignore[misc]  # a class of a package without types
        def _loglikelihood_tokens(
            self, requests: Sequence[Request], *_: Any, **__: Any
        ) -> list[tuple[float, bool]]:
            if isinstance(model, VLLM):
                return scored_by_vllm(model, requests, self.max_length)
            return scored(model, requests, self.max_length, label, progress)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            if not rolling:
                raise ScopeError(
                    "a text scored as a whole has no prompt",
                    found="a task of whole texts, and a gate or a scope other than 'all'",
                    expected="the scope 'all' and no gate",
                    do="steer all tokens, or leave this task out",
                )
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=not progress)

        def _model_generate(
            self, context: Any, max_length: int, stop: list[str], **options: Any
        ) -> Any:
            if isinstance(model, VLLM):
                return written_by_vllm(model, context, max_length, stop, seed, **options)
            return super()._model_generate(context, max_length, stop, **options)

    if isinstance(model, VLLM):
        config = model.llm.model_config
        return SteeredLM(
            pretrained=SimpleNamespace(device=torch.device("cpu"), config=config.hf_config),
            tokenizer=copy.deepcopy(model.chat.tokenizer),
            backend="causal",
            batch_size=_TOGETHER,
            max_length=config.max_model_len - 1,  # vLLM writes a token after each text
            add_bos_token=False if chat else None,
            chat_template_args=dict(model.chat.arguments),
        )
    return SteeredLM(
        pretrained=model.hf_model,
        tokenizer=copy.deepcopy(model.tokenizer),
        backend="causal",
        batch_size=1 if batch_size > 1 and model.engine.one_by_one() else batch_size,
        add_bos_token=False if chat else None,
        chat_template_args=model.chat_template_kwargs,
    )


def scored(
    model: Model, requests: Sequence[Request], longest: int, label: str, progress: bool
) -> list[tuple[float, bool]]:
    """Return the log-probability of each continuation, and whether it is the greedy one.

    Continuations that differ in their last token only share a forward. Contexts that are too long
    lose their beginning.

    Raises:
        HarnessError: A continuation is empty or fills the model's context.
    """
    shared: dict[tuple[tuple[int, ...], int], list[tuple[int, list[int]]]] = {}
    for k, (_, context, continuation) in enumerate(requests):
        ids, start = _cut(context, continuation, longest)
        shared.setdefault((tuple(ids[:-1]), start), []).append((k, continuation))
    groups = list(shared.values())
    batch = Batch(
        tuple((*ids, groups[k][0][1][-1]) for k, (ids, _) in enumerate(shared)),
        tuple(length for _, length in shared),
    )
    answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
    doing = f"{label}: likelihoods"
    with progress_bar(progress=progress, total=len(requests), desc=doing) as bar:
        for piece in batch.pieces(_TOKENS):
            logits = model.engine.forward(piece).logits
            for row, at in zip(logits, piece.rows or range(len(groups)), strict=True):
                logprobs = torch.log_softmax(row.float(), dim=-1)
                for k, continuation in groups[at]:
                    answers[k] = _sum(logprobs, continuation)
                bar.update(len(groups[at]))
    return answers


def scored_by_vllm(
    engine: VLLM, requests: Sequence[Request], longest: int
) -> list[tuple[float, bool]]:
    """Return what `scored` does, from requests of one batch.

    Raises:
        HarnessError: A continuation is empty or fills the model's context.
    """
    cut = [_cut(context, continuation, longest) for _, context, continuation in requests]
    batch = Batch(tuple(tuple(ids) for ids, _ in cut), tuple(start for _, start in cut))
    found = engine.score(batch, engine.documents(None, len(cut)))
    return [(sum(p for p, _ in row), all(rank == 1 for _, rank in row)) for row in found]


def written_by_vllm(
    engine: VLLM,
    context: Tensor,
    max_length: int,
    stop: list[str],
    seed: int,
    *,
    attention_mask: Tensor,
    do_sample: bool | None = None,
    temperature: float = 0.0,
    **options: Any,
) -> Tensor:
    """Return contexts with what follows them, padded, as the `generate` of transformers does."""
    asked = engine.documents(None, len(context))
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(context, attention_mask, strict=True)]
    found = engine.complete(
        rows,
        asked,
        max_tokens=max_length - context.shape[1],
        stop=stop,
        temperature=0.0 if do_sample is False else temperature,
        seed=seed,
        **options,
    )
    end = engine.chat.tokenizer.eos_token_id
    padded = pad_sequence([torch.tensor(ids) for ids in found], True, end)
    return torch.cat([context, padded.to(context.dtype)], dim=1)


def _cut(context: list[int], continuation: list[int], longest: int) -> tuple[list[int], int]:
    """Return the tokens of a text without its beginning if it is too long, and where scores start.

    Raises:
        HarnessError: The continuation is empty or fills the model's context.
    """
    ids = (context + continuation)[-longest:]
    start = len(ids) - len(continuation)
    if start < 1 or not continuation:
        raise HarnessError(
            "this continuation cannot be scored",
            found=f"{len(continuation)} tokens after {len(context)} of context",
            expected=f"at least one token of each, and at most {longest} in all",
            do="leave the document out, or take a model that reads longer texts",
        )
    return ids, start


def _sum(logprobs: Float[Tensor, "pos vocab"], tokens: Sequence[int]) -> tuple[float, bool]:
    wanted = torch.tensor(tokens, device=logprobs.device)[:, None]
    found = logprobs.gather(1, wanted)[:, 0]
    return float(found.sum()), bool((logprobs.argmax(dim=-1) == wanted[:, 0]).all())
