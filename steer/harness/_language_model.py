"""The model that lm-eval calls: ours, steered by whatever steers it at the time."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer._progress import progress_bar
from steer.engine import Batch
from steer.errors import HarnessError, ScopeError
from steer.model import Model

Request = tuple[Any, list[int], list[int]]  # texts, ids of the context, ids of the continuation
_TOKENS = 4096  # tokens of one forward when scoring


def language_model(
    model: Model, *, batch_size: int, chat: bool, rolling: bool, label: str, progress: bool
) -> Any:
    """Return a model as lm-eval takes it, an `lm_eval.models.huggingface.HFLM`.

    lm-eval's own class generates texts, through the model's `generate`. The library's engine, which
    knows where each context ends, computes likelihoods, so that every scope and gate applies.
    """
    from lm_eval.models.huggingface import HFLM

    class SteeredLM(HFLM):  # type: ignore[misc]  # a class of a package without types
        def _loglikelihood_tokens(
            self, requests: Sequence[Request], *_: Any, **__: Any
        ) -> list[tuple[float, bool]]:
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
        ids = (context + continuation)[-longest:]
        start = len(ids) - len(continuation)
        if start < 1 or not continuation:
            raise HarnessError(
                "this continuation cannot be scored",
                found=f"{len(continuation)} tokens after {len(context)} of context",
                expected=f"at least one token of each, and at most {longest} in all",
                do="leave the document out, or take a model that reads longer texts",
            )
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


def _sum(logprobs: Float[Tensor, "pos vocab"], tokens: Sequence[int]) -> tuple[float, bool]:
    wanted = torch.tensor(tokens, device=logprobs.device)[:, None]
    found = logprobs.gather(1, wanted)[:, 0]
    return float(found.sum()), bool((logprobs.argmax(dim=-1) == wanted[:, 0]).all())
