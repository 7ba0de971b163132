"""Measure the toy with plain forward hooks, for the figures on its card."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from jaxtyping import Float
from torch import Tensor

from steer.demo.data import DOMAINS, LEVELS
from steer.demo.judge import Judgement, judge
from steer.demo.language import NEUTRAL_PROMPTS, pairs, questions, system_tags

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Hook = Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]
Messages = list[dict[str, str]]
BLOCK: Final = 4  # steered; chosen on the validation topics
GATE_BLOCK: Final = 2  # where the gate reads a prompt; chosen on the validation topics
AT_ROLE: Final = -1  # read at the template's last token, "<|assistant|>"
ROWS: Final = 300  # prompts in one batch
NEW_TOKENS: Final = 48


class Subject:
    """The model under measurement and its tokenizer."""

    def __init__(self, model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast") -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._known: dict[tuple[object, ...], str] = {}

    def encode(self, prompts: Sequence[Messages]) -> dict[str, Tensor]:
        """Left-padded ids and mask of prompts in the chat template."""
        texts = self.tokenizer.apply_chat_template(
            list(prompts), tokenize=False, add_generation_prompt=True
        )
        return dict(self.tokenizer(texts, return_tensors="pt", padding=True))

    @contextmanager
    def hooked(self, block: int, hook: Hook) -> Iterator[None]:
        """Attach a forward hook to the output of one block."""
        handle = self.model.model.layers[block].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def read(
        self, prompts: Sequence[Messages], block: int, position: int = AT_ROLE
    ) -> Float[Tensor, "batch d_model"]:
        """Output of one block at one position counted from the end of each prompt, float64."""
        caught: list[Tensor] = []

        def catch(_: torch.nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
            caught.append(out[:, position].double())

        with self.hooked(block, catch):
            self.model.model(**self.encode(prompts), use_cache=False)
        return caught[0]

    def replies(
        self,
        prompts: Sequence[Messages],
        block: int = BLOCK,
        push: Float[Tensor, "batch d_model"] | None = None,
    ) -> list[str]:
        """Greedy replies, with one displacement per row added at all tokens of one block.

        A row that was asked before, with the same prompt and displacement, is not run again.
        """
        if push is None:
            push = torch.zeros(len(prompts), self.model.config.hidden_size)
        push = push.float()
        keys = [
            (block, repr(prompt), row.numpy().tobytes())
            for prompt, row in zip(prompts, push, strict=True)
        ]
        new = list({k: i for i, k in enumerate(keys) if k not in self._known}.values())
        for start in range(0, len(new), ROWS):
            rows = new[start : start + ROWS]
            with self.hooked(block, _adding(push[rows])):
                out = self.continued(self.encode([prompts[i] for i in rows]))
            texts = self.tokenizer.batch_decode(out, skip_special_tokens=True)
            self._known |= {keys[i]: text for i, text in zip(rows, texts, strict=True)}
        return [self._known[key] for key in keys]

    def continued(self, batch: dict[str, Tensor]) -> Tensor:
        """The ids that greedy decoding adds to a batch."""
        out: Tensor = self.model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False)
        return out[:, batch["input_ids"].shape[1] :]


def _adding(push: Float[Tensor, "batch d_model"]) -> Hook:
    def add(_: torch.nn.Module, __: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out + push[:, None].to(out.dtype)

    return add


def asked(text: str, tags: Mapping[str, str] | None = None) -> Messages:
    """A question as messages, under system tags if there are any."""
    system = [{"role": "system", "content": system_tags(tags)}] if tags else []
    return [*system, {"role": "user", "content": text}]


def share(texts: Sequence[str], domain: str, level: str) -> float:
    """Share of replies that the judge finds in this domain at this level."""
    return sum(judge(text) == Judgement(domain, level) for text in texts) / len(texts)


def tags_followed(subject: Subject, n: int, *, seed: int = 0) -> dict[tuple[str, str, int], float]:
    """Share of replies at the tagged level by (domain, level, number of tags), test topics."""
    rng = random.Random(seed)
    cells = list(itertools.product(DOMAINS, LEVELS, (1, 2, 3)))
    prompts = [
        asked(text, _tags(domain, level, count, rng))
        for domain, level, count in cells
        for text in questions(domain, n, seed=seed, split="test")
    ]
    texts = subject.replies(prompts)
    return {
        cell: share(texts[i * n : (i + 1) * n], cell[0], cell[1]) for i, cell in enumerate(cells)
    }


def _tags(domain: str, level: str, count: int, rng: random.Random) -> dict[str, str]:
    others = rng.sample([name for name in DOMAINS if name != domain], count - 1)
    named = [domain, *others]
    rng.shuffle(named)
    return {name: level if name == domain else rng.choice(LEVELS) for name in named}


def palrs(
    subject: Subject,
    domain: str,
    block: int = BLOCK,
    position: int = AT_ROLE,
    *,
    rescaled: bool = False,
) -> Float[Tensor, " d_model"]:
    """Difference of means of 100 chosen and 100 rejected responses in the user's slot.

    Rescaled: lengthened to the norm of the chosen mean (arXiv 2509.23982).
    """
    made_from = pairs(domain)
    chosen = subject.read([asked(pair.chosen) for pair in made_from], block, position).mean(0)
    rejected = subject.read([asked(pair.rejected) for pair in made_from], block, position).mean(0)
    raw = chosen - rejected
    return raw * (chosen.norm() / raw.norm()) if rescaled else raw


def vectors(subject: Subject, *, rescaled: bool) -> Float[Tensor, "domain d_model"]:
    """The PaLRS vectors of all domains at the steered block."""
    return torch.stack([palrs(subject, domain, rescaled=rescaled) for domain in DOMAINS])


def routes(subject: Subject, prompts: Sequence[Messages], block: int = GATE_BLOCK) -> list[int]:
    """Index of the domain whose training questions' mean is nearest, for each prompt."""
    means = []
    for domain in DOMAINS:
        prompts_of = [asked(str(pair.prompt)) for pair in pairs(domain)]
        means.append(subject.read(prompts_of, block).mean(0))
    distances = torch.cdist(subject.read(prompts, block), torch.stack(means))
    nearest: list[int] = distances.argmin(1).tolist()
    return nearest


def steered(
    subject: Subject,
    prompts: Sequence[Messages],
    directions: Float[Tensor, "domain d_model"],
    coefficients: Sequence[float],
    *,
    gated: bool,
) -> list[str]:
    """Replies under one coefficient per domain.

    Gated, each row is pushed only by the vector of the domain its prompt is nearest to, read
    unsteered; otherwise every row is pushed by the sum.
    """
    scaled = directions * torch.tensor(coefficients, dtype=directions.dtype)[:, None]
    push = scaled[routes(subject, prompts)] if gated else scaled.sum(0).expand(len(prompts), -1)
    return subject.replies(prompts, push=push)


def small_talk(subject: Subject) -> list[tuple[Tensor, int]]:
    """Ids of each neutral prompt with its unsteered reply, and where the reply's first token is."""
    found = []
    for prompt in NEUTRAL_PROMPTS:
        batch = subject.encode([asked(prompt)])
        whole = torch.cat([batch["input_ids"], subject.continued(batch)], dim=1)
        found.append((whole, batch["input_ids"].shape[1]))
    return found


def kl_neutral(
    subject: Subject, talk: Sequence[tuple[Tensor, int]], push: Float[Tensor, " d_model"]
) -> float:
    """Mean KL(steered || unsteered) in nats per token of the unsteered replies to small talk."""
    divergences: list[Tensor] = []
    for ids, start in talk:
        base = _log_probabilities(subject, ids)[start - 1 : -1]
        with subject.hooked(BLOCK, _adding(push[None])):
            moved = _log_probabilities(subject, ids)[start - 1 : -1]
        divergences.append((moved.exp() * (moved - base)).sum(-1))
    return torch.cat(divergences).mean().item()


@torch.no_grad()
def _log_probabilities(subject: Subject, ids: Tensor) -> Float[Tensor, "pos vocab"]:
    logits: Tensor = subject.model(ids).logits[0]
    return logits.double().log_softmax(-1)
