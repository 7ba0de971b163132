"""Alignment vectors by hook: three domains, a different row of coefficients for every prompt.

Rank 16 on every linear module of the blocks. The arithmetic alone, counted in multiplications of
weights, stands in each line's note. `peft` 0.21.2 stands beside: its adapters take one adapter per
row (`adapter_names`), so there every row has one domain, which costs steer the same and it less.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

import steer
from tests.bench.lines import Limit, Line, exact
from tests.bench.registry import Options, bench
from tests.bench.rounds import Comparison, Method, measure
from tests.bench.setting import SPECIALS, bench_model
from tests.bench.slices import twin
from tests.tiny import tiny_model

RANK = 16
DOMAINS = ("medical", "legal", "financial")
_ROWS, _PROMPT, _NEW_TOKENS = 8, 64, 24
_FORWARDS = 8  # over the prompts, in one context
Steering = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Size:
    """A size of model, and what steering it may cost.

    Args:
        name: Of the figures.
        model: Makes it.
        generate: Limit on generation.
        prefill: Limit on one forward over the prompts.
    """

    name: str
    model: Callable[[], PreTrainedModel]
    generate: Limit
    prefill: Limit


def demo_size() -> PreTrainedModel:
    """Return a random model of the demo model's size."""
    model = tiny_model(
        "llama",
        layers=6,
        width=128,
        vocab=235,
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = SPECIALS.index("<pad>")
    return model


SIZES = (
    Size("12x512", bench_model, Limit(1.20), Limit(1.35)),
    Size("demo", demo_size, Limit(1.35), Limit(1.50)),
)


@bench("weights")
def weights(options: Options) -> Iterator[Line]:
    """Rank-16 alignment vectors by hook, a setting per row: the plain model, PEFT."""
    for size in SIZES:
        yield from _of_size(size, options)


def _of_size(size: Size, options: Options) -> Iterator[Line]:
    model = size.model()
    generator = torch.Generator().manual_seed(0)
    vocab = model.config.vocab_size
    ids = torch.randint(len(SPECIALS), vocab, (_ROWS, _PROMPT), generator=generator)
    knobs = steer.compose({name: _vector(model, generator) for name in DOMAINS})
    mixed = torch.rand(_ROWS, len(DOMAINS), generator=generator) + 0.3
    alone = torch.eye(len(DOMAINS)).repeat(_ROWS, 1)[:_ROWS]
    yield _same_as_merged(size, model, knobs, mixed, ids)
    unsteered, ours, single, theirs = (twin(model) for _ in range(4))
    ways: dict[str, tuple[Any, Steering]] = {
        "unsteered": (unsteered, nullcontext),
        "steer": (ours, partial(steer.Model(ours).steered, knobs, mixed, weights="hook")),
        "steer, one each": (single, partial(steer.Model(single).steered, knobs, alone)),
        "peft": (theirs, _peft(theirs, knobs)),
    }
    _check(ways, ids)
    for work, run, limit in (
        ("generate", _generate, size.generate),
        ("prefill", _prefill, size.prefill),
    ):
        methods = [
            Method(name, partial(run, own, ids, steering)) for name, (own, steering) in ways.items()
        ]
        least = _arithmetic(model, knobs, 1 if work == "generate" else _PROMPT)
        yield from measure(methods, _comparisons(size, work, limit, least), options.budget)


def _comparisons(size: Size, work: str, limit: Limit, least: float) -> Sequence[Comparison]:
    about = f"{_ROWS} rows, rank {RANK} × {len(DOMAINS)} domains, {size.name}, {work}"
    return [
        Comparison(
            f"weights.{work}.{size.name}",
            f"{about}, a setting per row / plain model",
            "steer",
            "unsteered",
            limit,
            f"arithmetic alone: {least:.3f}",
        ),
        Comparison(
            f"weights.{work}.{size.name}.peft",
            f"{about}, one domain per row / peft, one adapter per row",
            "steer, one each",
            "peft",
            Limit(1.0),
        ),
    ]


def _vector(model: PreTrainedModel, generator: torch.Generator) -> steer.Vector:
    """Return random factors on every matrix of the blocks."""
    return steer.Vector(
        {
            steer.Weight(name): steer.LowRank(
                0.02 * torch.randn(p.shape[0], RANK, generator=generator),
                0.02 * torch.randn(RANK, p.shape[1], generator=generator),
            )
            for name, p in model.named_parameters()
            if ".layers." in name and p.ndim == 2
        }
    )


def _arithmetic(model: PreTrainedModel, knobs: steer.Composition, scored_each: int) -> float:
    """Return multiplications with factors over those without; one token in so many is scored."""
    own = sum(p.numel() for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2)
    head = model.get_output_embeddings().weight.numel() / scored_each
    more = sum(
        term.A.numel() + term.B.numel()
        for part in knobs.parts.values()
        for term in part.vector.terms.values()
        if isinstance(term, steer.LowRank)
    )
    return float((own + head + more) / (own + head))


def _same_as_merged(
    size: Size, model: PreTrainedModel, knobs: steer.Composition, rows: Tensor, ids: Tensor
) -> Line:
    """Compare the logits of every row with those of the weights merged at its setting."""
    lm = steer.Model(twin(model))
    with lm.steered(knobs, rows), torch.inference_mode():
        found = lm.hf_model(input_ids=ids).logits.double()
    worst = 0.0
    for row, prompt, own in zip(rows, ids, found, strict=True):
        merged = steer.Model(size.model())
        with merged.steered(knobs, row, weights="merge"), torch.inference_mode():
            expected = merged.hf_model(input_ids=prompt[None]).logits[0].double()
        worst = max(worst, float((own - expected).norm() / expected.norm()))
    what = f"{size.name}: relative distance of logits by hook from those of merged weights"
    return Line(f"weights.same.{size.name}", what, exact(worst), len(rows), Limit(1e-5))


def _peft(model: PreTrainedModel, knobs: steer.Composition) -> Steering:
    """Return the way of peft: the same factors as adapters, one named for each row."""
    from peft import LoraConfig, get_peft_model

    names = [n.removesuffix(".weight") for n, p in model.named_parameters() if p.ndim == 2]
    targets = [name for name in names if ".layers." in name]
    config = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=targets)
    wrapped: Any = get_peft_model(model, config, adapter_name=DOMAINS[0])
    for domain in DOMAINS[1:]:
        wrapped.add_adapter(domain, config)
    modules = dict(wrapped.base_model.model.named_modules())
    with torch.no_grad():
        for domain, part in knobs.parts.items():
            for site, term in part.vector.terms.items():
                if isinstance(site, steer.Weight) and isinstance(term, steer.LowRank):
                    module: Any = modules[site.name.removesuffix(".weight")]
                    module.lora_A[domain].weight.copy_(term.A)
                    module.lora_B[domain].weight.copy_(term.B)
    wrapped.eval()
    chosen = [DOMAINS[row % len(DOMAINS)] for row in range(_ROWS)]

    @contextmanager
    def steering() -> Iterator[dict[str, Any]]:
        yield {"through": wrapped, "adapter_names": chosen}

    return steering


def _through(model: Any, context: object) -> tuple[Any, dict[str, Any]]:
    """Return what is called, and with which further arguments: those of peft, else none."""
    if not isinstance(context, dict):
        return model, {}
    return context["through"], {"adapter_names": context["adapter_names"]}


def _generate(model: Any, ids: Tensor, steering: Steering, number: int = 0) -> Tensor:
    with steering() as context:
        called, more = _through(model, context)
        out: Tensor = called.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
            **more,
        )
    return out[:, ids.shape[1] :]


def _prefill(model: Any, ids: Tensor, steering: Steering, number: int = 0) -> Tensor:
    with steering() as context, torch.inference_mode():
        called, more = _through(model, context)
        for _ in range(_FORWARDS):
            out: Tensor = called(input_ids=ids, use_cache=True, logits_to_keep=1, **more).logits
    return out


def _check(ways: dict[str, tuple[Any, Steering]], ids: Tensor) -> None:
    """Refuse ways that do not displace, or not alike.

    Raises:
        RuntimeError: The logits are those of the plain model, or differ from those of peft.
    """
    found = {name: _prefill(model, ids, steering) for name, (model, steering) in ways.items()}
    if torch.allclose(found["steer"], found["unsteered"], rtol=1e-3):
        raise RuntimeError("steer: the logits are those of the plain model")
    if not torch.allclose(found["steer, one each"], found["peft"], rtol=1e-3, atol=1e-4):
        raise RuntimeError("peft: displaces otherwise than steer does")
