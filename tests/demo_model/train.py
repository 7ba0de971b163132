"""Train the toy from a seed: `python -m tests.demo_model.train`.

In the first stage the model learns the language; untagged questions are answered at all levels, so
that steering can move both ways. A short second stage, at a low learning rate, makes generic
answers the most frequent ones without a tag, so that the unsteered model is in the middle.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from jaxtyping import Int
from torch import Tensor

from steer.demo import MODEL_PATH
from tests.demo_model.conversations import P_GENERIC, P_GENERIC_LATE, draw
from tests.demo_model.displacement import displace
from tests.demo_model.tokenizer import make_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SEED: Final = 0
STEPS: Final = 2000
LATE: Final = 0.15  # steps of the second stage for each of the first
BATCH: Final = 32
POOL: Final = 8  # batches drawn together and sorted by length, so that little is padded
DECAY: Final = 0.1
EMBEDDING_STD: Final = 1.0  # words weigh against what the blocks add, so steering is gentle
DISPLACED_FROM: Final = 0.45  # of the first stage's steps; see tests.demo_model.displacement
P_UNKNOWN: Final = 0.02  # of a user's word being replaced by <unk>
IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the training.

    Args:
        steps: Steps, of one batch each.
        rate: Highest learning rate.
        warm_up: Steps of linear warm-up.
        displaced_from: Share of the steps after which rows are displaced.
        p_generic: Probability of a generic answer to a question without a tag for its domain.
    """

    steps: int
    rate: float
    warm_up: int
    displaced_from: float
    p_generic: float

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine to a twentieth."""
        warm = min(1.0, (step + 1) / self.warm_up)
        return self.rate * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * step / self.steps)) / 2)


def stages(steps: int) -> tuple[Stage, Stage]:
    """Return the two stages of a training whose first has so many steps."""
    return (
        Stage(steps, 2e-3, 100, DISPLACED_FROM, P_GENERIC),
        Stage(round(LATE * steps), 3e-4, 20, 0.0, P_GENERIC_LATE),
    )


def make_model(vocab: int, *, seed: int) -> "LlamaForCausalLM":
    """A Llama of 6 blocks and width 128 with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=6,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
    return model


def batches(
    tokenizer: "PreTrainedTokenizerFast", *, seed: int, p_generic: float = P_GENERIC
) -> Iterator[tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]:
    """Endless (input ids, labels), right-padded; labels only on the replies."""
    rng = random.Random(seed)
    while True:
        texts = tokenizer.apply_chat_template(
            [draw(rng, p_generic) for _ in range(BATCH * POOL)], tokenize=False
        )
        rows = sorted(tokenizer(texts)["input_ids"], key=len)
        for start in rng.sample(range(0, len(rows), BATCH), POOL):
            yield _pad(rows[start : start + BATCH], rng)


def _pad(
    rows: list[list[int]], rng: random.Random
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        seen, wanted = _mask(row, rng)
        ids[i, : len(row)] = torch.tensor(seen)
        labels[i, : len(row)] = torch.tensor(wanted)
    return ids, labels


def _mask(row: list[int], rng: random.Random) -> tuple[list[int], list[int]]:
    """Replace some of the user's words by <unk>, and return ids and the labels of the replies."""
    unknown, user, assistant, end = 1, 4, 5, 6
    seen, wanted, role = [], [], 0
    for token in row:
        wanted.append(token if role == assistant else IGNORED)
        hidden = role == user and token != end and rng.random() < P_UNKNOWN
        seen.append(unknown if hidden else token)
        role = 0 if token == end else token if token in (user, assistant) else role
    return seen, wanted


def train(
    steps: int = STEPS, *, seed: int = SEED
) -> tuple["LlamaForCausalLM", "PreTrainedTokenizerFast"]:
    """Train a new model; equal arguments on one machine give equal weights.

    Args:
        steps: Steps of the first stage; the second has a fixed share of them.
        seed: Seed of the weights and of the first stage; the second takes the next.
    """
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), seed=seed)
    model.train()
    for number, stage in enumerate(stages(steps)):
        _run(stage, model, tokenizer, seed + number)
    return model.eval(), tokenizer


def _run(
    stage: Stage, model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", seed: int
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY, betas=(0.9, 0.98))
    stream = batches(tokenizer, seed=seed, p_generic=stage.p_generic)
    displacements = torch.Generator().manual_seed(seed)
    for step in range(stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.rate_at(step)
        ids, labels = next(stream)
        hooks = []
        if step >= stage.displaced_from * stage.steps:
            width = model.config.hidden_size
            hooks.append(displace(model.model.layers, len(ids), width, displacements))
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        for hook in hooks:
            hook.remove()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            _say(f"step {step + 1:5d} of {stage.steps}: loss {loss.item():.3f}")


def main(arguments: list[str] | None = None) -> None:
    """Train, save and, if a card is asked for, measure the saved files and write it.

    Args:
        arguments: Command-line arguments; those of the process if not given.
    """
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the first stage")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, help="threads of torch; 1 gives the shipped model")
    parser.add_argument("--out", type=Path, default=MODEL_PATH, help="folder to write")
    parser.add_argument("--card", type=Path, help="measure, and write the figures here")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    start = time.perf_counter()
    model, tokenizer = train(options.steps, seed=options.seed)
    total = sum(stage.steps for stage in stages(options.steps))
    _say(f"trained {total} steps in {(time.perf_counter() - start) / 60:.1f} minutes")
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    if options.card is not None:
        _measure(options.out, options.card, options.steps, options.seed)


def _measure(folder: Path, card: Path, steps: int, seed: int) -> None:
    """Measure the saved files, not the weights in memory; write and print the card."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    from tests.demo_model.card import write_card
    from tests.demo_model.figures import measure
    from tests.demo_model.measure import Subject

    model = LlamaForCausalLM.from_pretrained(folder).eval()
    subject = Subject(model, AutoTokenizer.from_pretrained(folder))
    write_card(card, measure(subject), steps=steps, seed=seed, parameters=model.num_parameters())
    _say(card.read_text(encoding="utf-8"))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
