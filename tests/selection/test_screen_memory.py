"""The screen's memory is that of a forward and backward of the longest pair, whatever their count.

Bytes are counted by torch's own allocator, so that they are the same on every machine.
"""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

import steer
from steer.measure import neutral_text
from steer.model import exchange_batch
from steer.selection._candidates import candidates_of
from steer.selection._screen import screen
from tests.tiny import tiny_model, tiny_tokenizer

WORDS = ["a", "b", "c", "x", "y", "z", "how", "are", "you", "what", "is", "it"]


def peak(run: Callable[[], object]) -> int:
    """Return the largest number of bytes that were in use at once, above those before."""
    run()  # what is made once is not counted
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    total = highest = 0
    for _, size in memory:
        total += size
        highest = max(highest, total)
    return highest


def text(words: int, start: int) -> str:
    return " ".join(WORDS[(start + 5 * k) % len(WORDS)] for k in range(words))


def plain(lm: steer.Model, pair: steer.Pair) -> None:
    """A forward and backward of both answers, with no more than the stream's gradient."""
    batch = exchange_batch(lm.chat, [pair.prompt] * 2, [pair.chosen, pair.rejected])
    ids, mask = batch.padded("right", torch.device("cpu"))
    embedded = lm.hf_model.get_input_embeddings()(ids).requires_grad_()
    logits = lm.hf_model(inputs_embeds=embedded, attention_mask=mask.long()).logits
    logits.log_softmax(dim=-1).mean().backward()


def test_the_screen_takes_at_most_half_as_much_again_as_the_longest_pair() -> None:
    wide = tiny_model("llama", layers=6, width=128, intermediate_size=384)
    lm = steer.Model(wide, tiny_tokenizer())
    pairs = steer.Pairs.of(
        steer.Pair(text(10, k), text(20 + k, k + 1), text(15 + k, k + 2)) for k in range(16)
    )
    for parameter in lm.hf_model.parameters():
        parameter.requires_grad_(False)
    longest = pairs[len(pairs) - 1]
    recording = steer.record(lm, pairs, at="response_mean", progress=False)
    neutral = neutral_text(lm, [pair.prompt for pair in pairs][:6], max_new_tokens=16)
    candidates = candidates_of(recording, None, None, None, None)
    one = peak(lambda: plain(lm, longest))
    every = peak(lambda: screen(lm, candidates, pairs, neutral, "mean", 0, False))
    assert every <= 1.5 * one
