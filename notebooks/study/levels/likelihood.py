"""Scores of several answers to each prompt, with the prompt computed once.

The numbers are those of `steer.level_preference`, which computes a prompt again for each answer;
here most of a text is its prompt, and most of the time of the study goes into such scores.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

import steer
from notebooks.study.levels.data import LEVELS
from steer import Answers
from steer.network import encode_exchange
from steer.pairs import Message

_TOGETHER = 10  # prompts
Table = Float[Tensor, "question level"]


@torch.inference_mode()
def level_scores(model: steer.Model, part: Answers, prefix: Sequence[Message] = ()) -> Table:
    """Return the mean log-probability per token of each answer, in nats.

    Args:
        model: The model, steered or not; its settings must be the same for all rows.
        part: Questions with an answer at each level.
        prefix: Messages before every question.
    """
    found = torch.empty(len(part.prompts), len(LEVELS), dtype=torch.float64)
    texts = [
        [
            encode_exchange(model.chat, (*prefix, Message("user", asked)), part.answers[level][k])
            for level in LEVELS
        ]
        for k, asked in enumerate(map(str, part.prompts))
    ]
    order = sorted(range(len(texts)), key=lambda k: texts[k][0].response_start)
    for start in range(0, len(order), _TOGETHER):
        some = order[start : start + _TOGETHER]
        prompts = [list(texts[k][0].ids[: texts[k][0].response_start]) for k in some]
        answers = [list(text.ids[text.response_start :]) for k in some for text in texts[k]]
        found[some] = _scores(model, prompts, answers).unflatten(0, (len(some), len(LEVELS)))
    return found


def _scores(
    model: steer.Model, prompts: list[list[int]], answers: list[list[int]]
) -> Float[Tensor, " answer"]:
    """Score the same number of answers to each of some prompts."""
    each, run = len(answers) // len(prompts), model.hf_model
    ids, mask = _padded(prompts, left=True)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    first = run(ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1)
    first.past_key_values.batch_repeat_interleave(each)
    own, real = _padded(answers, left=False)
    whole = torch.cat([mask.repeat_interleave(each, 0), real], dim=1)
    rest = run(
        own[:, :-1],
        attention_mask=whole[:, :-1],
        position_ids=(whole.cumsum(1) - 1)[:, mask.shape[1] : -1],
        past_key_values=first.past_key_values,
        use_cache=True,
    ).logits
    logits = torch.cat([first.logits.repeat_interleave(each, 0), rest], dim=1)
    chosen = logits.gather(2, own[..., None]).squeeze(2) - logits.logsumexp(dim=2)
    total: Tensor = (chosen.double() * real).sum(1) / real.sum(1)
    return total


def _padded(
    texts: list[list[int]], *, left: bool
) -> tuple[Int[Tensor, "text pos"], Int[Tensor, "text pos"]]:
    longest = max(map(len, texts))
    rows, masks = [], []
    for text in texts:
        gap = (longest - len(text), 0) if left else (0, longest - len(text))
        rows.append(pad(torch.tensor(text), gap))
        masks.append(pad(torch.ones(len(text), dtype=torch.long), gap))
    return torch.stack(rows), torch.stack(masks)
