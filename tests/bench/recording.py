"""Recording all layers: against the bare body, and against the fastest setting of the peers.

A round works on four of the hundred pairs, another four each round: short rounds keep what else
runs on the machine out of the ratio. Every method's cost is a sum over pairs or batches of them, so
that the ratio is that of all hundred, but for what `record` does once per call, and for its last
pack, which is not full; both count 25 times instead of once, which is against us. The peers' batch
settings are compared beforehand, on sixteen pairs.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers import PreTrainedModel

import steer
from steer.extract import packing_report
from tests.bench.lines import Limit, Line, exact
from tests.bench.peers import Recorder, recorders
from tests.bench.registry import Options, bench
from tests.bench.rounds import Comparison, Method, cpu_time, measure
from tests.bench.setting import (
    PAIRS,
    VOCAB,
    Texts,
    bench_model,
    bench_pairs,
    bench_tokenizer,
    exchanges,
    slots,
    tensors,
)
from tests.bench.slices import interleaved, twin

_CHUNK = 4
_TRIAL = 16
_LARGE = 128_000
_AT = "response_mean"
_PEER_ROUNDS = 30


@bench("recording")
def recording(options: Options) -> Iterator[Line]:
    """Recording at `response_mean`: the bare body, and the fastest peer, vocabulary 32,000."""
    model = bench_model()
    yield _check(model)
    texts = [exchanges(chunk) for chunk in _chunks(VOCAB)]
    peer = _fastest_peer(model, VOCAB)
    yield from measure(
        [_bare(model, texts), _record(model, _AT, VOCAB), _peer(model, peer, texts, VOCAB)],
        [
            Comparison(
                "recording.response_mean",
                "record / bare body, one text at a time, × unique / all tokens",
                "record",
                "bare",
                Limit(0.95),
                _shared(VOCAB, exchanges),
            ),
            Comparison(
                "recording.peer_32k",
                f"fastest peer ({peer.name}) / record, vocabulary 32,000",
                "peer",
                "record",
                Limit(1.8, "at least"),
            ),
        ],
        options.budget,
    )


@bench("template")
def template(options: Options) -> Iterator[Line]:
    """Recording at `template`: the bare body."""
    model = bench_model()
    texts = [slots(chunk) for chunk in _chunks(VOCAB)]
    yield from measure(
        [_bare(model, texts), _record(model, "template", VOCAB)],
        [
            Comparison(
                "template.bare",
                "record / bare body, one text at a time, × unique / all tokens",
                "record",
                "bare",
                Limit(1.05),
                _shared(VOCAB, slots),
            )
        ],
        options.budget,
    )


@bench("large_vocabulary")
def large_vocabulary(options: Options) -> Iterator[Line]:
    """Recording at `response_mean`: the fastest peer, vocabulary 128,000."""
    model = bench_model(_LARGE)
    texts = [exchanges(chunk, _LARGE) for chunk in _chunks(_LARGE)]
    peer = _fastest_peer(model, _LARGE)
    yield from measure(
        [_record(model, _AT, _LARGE), _peer(model, peer, texts, _LARGE)],
        [
            Comparison(
                "large_vocabulary.peer_128k",
                f"fastest peer ({peer.name}) / record, vocabulary 128,000",
                "peer",
                "record",
                Limit(3.0, "at least"),
            )
        ],
        options.budget,
    )


def _chunks(vocab: int, size: int = _CHUNK) -> list[steer.Pairs]:
    pairs = bench_pairs(vocab)
    return [pairs[start : start + size] for start in range(0, PAIRS, size)]


def _longest(vocab: int) -> int:
    return max(map(len, exchanges(bench_pairs(vocab), vocab).ids))


def _bare(model: PreTrainedModel, texts: list[Texts]) -> Method:
    """Return the reference: the transformer body alone, no hooks, one text at a time."""
    inputs = [tensors(some.ids) for some in texts]
    body = twin(model).model

    def run(number: int) -> None:
        with torch.no_grad():
            for ids in inputs[number % len(inputs)]:
                body(ids)

    shares = [some.unique / some.tokens for some in texts]
    return Method("bare", run, scale=lambda number: shares[number % len(shares)])


def _record(model: PreTrainedModel, at: str, vocab: int) -> Method:
    lm = steer.Model(twin(model), bench_tokenizer(vocab))
    packing_report(lm, _longest(vocab))  # once per model; `recording.check` is its cost
    chunks = _chunks(vocab)

    def run(number: int) -> object:
        return steer.record(lm, chunks[number % len(chunks)], at, progress=False)

    return Method("record", run)


def _peer(model: PreTrainedModel, peer: Recorder, texts: list[Texts], vocab: int) -> Method:
    own, tokenizer = twin(model), bench_tokenizer(vocab)

    def run(number: int) -> object:
        return peer.run(own, tokenizer, texts[number % len(texts)].strings)

    return Method("peer", run, rounds=_PEER_ROUNDS)


def _fastest_peer(model: PreTrainedModel, vocab: int) -> Recorder:
    """Return the fastest setting of all peers, tried on sixteen pairs."""
    tokenizer = bench_tokenizer(vocab)
    strings = exchanges(bench_pairs(vocab)[:_TRIAL], vocab).strings
    tried = recorders()
    twins = [twin(model) for _ in tried]
    for recorder, own in zip(tried, twins, strict=True):
        recorder.run(own, tokenizer, strings[:4])
    jobs = [partial(r.run, own, tokenizer, strings) for r, own in zip(tried, twins, strict=True)]
    times = interleaved(jobs, [1.0] * len(jobs))
    return tried[times.index(min(times))]


def _check(model: PreTrainedModel) -> Line:
    """Return what finding out whether a model can be packed costs, once per model."""
    lm = steer.Model(model, bench_tokenizer())
    steer.record(lm, bench_pairs()[:1], "prompt_last", progress=False, packing=False)  # warm-up
    check = cpu_time(Method("check", lambda number: packing_report(lm, _longest(VOCAB))), 0)
    some = bench_pairs(VOCAB)[:_TRIAL]
    method = Method("some", lambda number: steer.record(lm, some, _AT, progress=False))
    record = cpu_time(method, 0) * PAIRS / _TRIAL
    what = f"once per model: packed forwards tried against plain ones / record, {PAIRS} pairs"
    return Line("recording.check", what, exact(check / record), 1)


def _shared(vocab: int, texts: Callable[..., Texts]) -> str:
    found = texts(bench_pairs(vocab), vocab)
    return (
        f"{found.unique:,} unique of {found.tokens:,} tokens: every beginning that texts share, "
        "prompt or template, once"
    )
