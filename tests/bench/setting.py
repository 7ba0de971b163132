"""The model and the pairs that everything is measured on: built in memory from a seed.

A random Llama of 12 layers × 512 with 8 heads; 100 pairs with prompts of about 60 tokens and
answers of 40 to 120, all of random words. One word is one token, so that the same texts give every
method the same token ids.
"""

import functools
import random
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import steer
from steer.network import encode_exchange, encode_prompt, render
from tests.tiny import tiny_model

LAYERS, WIDTH, HEADS, INNER = 12, 512, 8, 2048
VOCAB = 32_000
PAIRS = 100
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<user>", "<assistant>")
_TEMPLATE = (
    "<s>{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def bench_model(vocab: int = VOCAB) -> PreTrainedModel:
    """Return the model; nothing ends its generation but the number of tokens asked for.

    Args:
        vocab: Vocabulary size.
    """
    model = tiny_model(
        "llama",
        layers=LAYERS,
        width=WIDTH,
        vocab=vocab,
        intermediate_size=INNER,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
    )
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = SPECIALS.index("<pad>")
    return model


@functools.cache
def bench_tokenizer(vocab: int = VOCAB) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the words w6, w7, …, with a chat template.

    Args:
        vocab: Vocabulary size.
    """
    words = [*SPECIALS, *(f"w{i}" for i in range(len(SPECIALS), vocab))]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["<user>", "<assistant>"],
    )
    fast.chat_template = _TEMPLATE
    return fast


@functools.cache
def bench_pairs(vocab: int = VOCAB, count: int = PAIRS, seed: int = 0) -> steer.Pairs:
    """Return the pairs.

    Args:
        vocab: Vocabulary size.
        count: Number of pairs.
        seed: They depend on this and the sizes alone.
    """
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        ids = draw.sample(range(len(SPECIALS), vocab), draw.randint(low, high))
        return " ".join(f"w{i}" for i in ids)

    return steer.Pairs.of(
        steer.Pair(words(50, 70), words(40, 120), words(40, 120)) for _ in range(count)
    )


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of some pairs and their token ids, in the order chosen, rejected, chosen, …

    Args:
        strings: The texts as the model reads them.
        ids: Their tokens.
    """

    strings: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.ids))

    @property
    def unique(self) -> int:
        """Tokens that must be computed at least: every shared beginning counted once."""
        return len({ids[: n + 1] for ids in self.ids for n in range(len(ids))})


def exchanges(pairs: steer.Pairs, vocab: int = VOCAB) -> Texts:
    """Return prompts with their answers: two texts per pair that share the prompt."""
    tokenizer = bench_tokenizer(vocab)
    sides = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    return Texts(
        tuple(render(tokenizer, prompt) + answer for prompt, answer in sides),
        tuple(encode_exchange(tokenizer, prompt, answer).ids for prompt, answer in sides),
    )


def slots(pairs: steer.Pairs, vocab: int = VOCAB) -> Texts:
    """Return the answers alone in the user's slot, as `at="template"` reads them."""
    tokenizer = bench_tokenizer(vocab)
    answers = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
    return Texts(
        tuple(render(tokenizer, answer) for answer in answers),
        tuple(encode_prompt(tokenizer, answer) for answer in answers),
    )


def tensors(ids: tuple[tuple[int, ...], ...]) -> list[torch.Tensor]:
    """Return each text's tokens as a batch of one."""
    return [torch.tensor([row]) for row in ids]
