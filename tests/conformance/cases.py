"""What the conformance tests share: vectors, prompts, batches and comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steer import Composition, DomainGate, Part, Vector, compose
from steer.algebra import parse_scope
from tests import registered
from tests.tiny import MIXTURES
from tests.weights import everywhere

WIDTH, LAYERS, VOCAB = 32, 4, 128
DOMAINS = ("medical", "legal", "financial")
PROMPTS = (
    "What is the dose?",
    "Is this contract binding, and what happens when one party does not pay?",
    "Sell it?",
    "Should the bond or the share be sold first?",
)
SCOPES = (*registered.SCOPES, "all[3:]", "response[:18]", "all[:5]")
ROWS = ((12, 9), (5, 9), (17, 9), (8, 9))  # lengths of a prompt and of the response to it


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector(*layers: int, seed: int = 0, size: float = 1.0) -> Vector:
    """A random direction of mean length `size`·√WIDTH at each layer."""
    g = generator(seed)
    return Vector.of({layer: size * torch.randn(WIDTH, generator=g) for layer in layers})


def knobs(
    operators: Sequence[str] = ("add", "add", "add"),
    scopes: Sequence[str] = ("all", "all", "all"),
    layers: Sequence[Sequence[int]] = ((1, 2), (1, 3), (2,)),
    gate: DomainGate | None = None,
) -> Composition:
    """Three domains with an operator, a scope and layers each."""
    parts = {
        name: Part(vector(*at, seed=10 + k), operator, parse_scope(scope))
        for k, (name, operator, scope, at) in enumerate(
            zip(DOMAINS, operators, scopes, layers, strict=True)
        )
    }
    return compose(parts, gate=gate)


KINDS = ("weights", "both")  # of sites, beside the residual ones that all other tests have


def mixed(
    lm: Any,
    kind: str,
    operators: Sequence[str] = ("add", "add", "add"),
    scopes: Sequence[str] = ("all", "all", "all"),
    layers: Sequence[Sequence[int]] = ((1, 2), (1, 3), (2,)),
    gate: DomainGate | None = None,
    size: float = 0.3,
) -> Composition:
    """Three domains on every weight of a model that a hook can take, or on residual sites too."""
    residual = knobs(operators, scopes, layers).parts
    parts = {}
    for k, (name, part) in enumerate(residual.items()):
        own = everywhere(lm.hf_model, seed=k, size=size)
        terms = {**own.terms, **(part.vector.terms if kind == "both" else {})}
        operator = part.operator if kind == "both" else "add"  # weights can only be added
        parts[name] = Part(Vector(terms), operator, part.scope)
    return compose(parts, gate=gate)


def gate(centroids: Tensor | None = None, layer: int = 1, margin: float = 0.0) -> DomainGate:
    """A gate at a layer; random centroids split random prompts."""
    if centroids is None:
        centroids = torch.randn(3, WIDTH, generator=generator(77))
    return DomainGate(DOMAINS, centroids, layer, margin)


def sequences(rows: Sequence[tuple[int, int]] = ROWS, seed: int = 3) -> list[list[int]]:
    """Random ids, without special tokens, of prompt plus response for each row."""
    g = generator(seed)
    return [torch.randint(6, VOCAB, (p + r,), generator=g).tolist() for p, r in rows]


def padded(rows: Sequence[Sequence[int]], side: str, fill: int = 0) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and `position_ids` of a rectangle."""
    width = max(map(len, rows))
    ids, mask = (
        torch.full((len(rows), width), fill),
        torch.zeros(len(rows), width, dtype=torch.long),
    )
    for r, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[r, at], mask[r, at] = torch.tensor(row), 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def unpadded(values: Tensor, mask: Tensor) -> list[Tensor]:
    """The rows of `[batch, pos, …]` without padding."""
    return [row[real.bool()] for row, real in zip(values, mask, strict=True)]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal, and zeros of the same sign."""
    return a.shape == b.shape and bool(torch.equal(a, b)) and torch.equal(a.signbit(), b.signbit())


def distance(a: Tensor, b: Tensor) -> float:
    """max|a − b| / max|b|."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max())


def close(a: Tensor, b: Tensor, bound: float = 1e-5) -> None:
    """Fail unless a equals b to a relative bound; 1e-5 is the contract's in float32."""
    assert a.shape == b.shape
    found = distance(a, b)
    assert found <= bound, f"relative distance {found:.2e}, bound {bound:.0e}"


def displaced_bound(size: float) -> float:
    """The contract's bound for weights that are displaced by `size` times their own size.

    Queries and keys so displaced make attention scores 1 + size² times as large, and the absolute
    error of a score is the relative error of its probability.
    """
    return 1e-5 * (1 + size**2)


def idle(family: str, steered: Tensor, plain: Tensor) -> None:
    """Fail unless a row without coefficients, beside rows with them, is the unsteered one.

    Bit for bit, but to rounding in a mixture of experts: how many tokens of other rows an expert
    gets changes the shape of its products, and with it the order in which a machine sums them.
    """
    if family in MIXTURES:
        close(steered, plain)
    else:
        assert same_bits(steered, plain)


def far(a: Tensor, b: Tensor) -> None:
    """Fail unless a differs from b by far more than rounding: guards tests against no-ops."""
    assert distance(a, b) > 1e-2


def hooks_of(model: torch.nn.Module) -> dict[str, list[Any]]:
    """Every hook on every module, without those that transformers keeps to capture outputs."""
    found: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        theirs = {
            key
            for kind, hooks in vars(module).items()
            if kind.endswith("_hooks") and isinstance(hooks, Mapping)
            for key, hook in hooks.items()
            if str(getattr(hook, "__module__", "")).startswith("transformers")
        }
        for kind, hooks in vars(module).items():
            if "_hooks" in kind and isinstance(hooks, Mapping):
                ours = [hook for key, hook in hooks.items() if key not in theirs]
                if ours:
                    found[f"{name}.{kind}"] = ours
    return found


class Snapshot:
    """Everything of a model that steering must leave as it was."""

    def __init__(self, hf: Any) -> None:
        self.state = {k: v.clone() for k, v in hf.state_dict().items()}
        self.data = {k: v.data_ptr() for k, v in hf.state_dict().items()}
        self.hooks = hooks_of(hf)
        self.attributes = {
            name: {k for k in vars(m) if k not in _TRANSFORMERS_OWN}
            for name, m in hf.named_modules()
        }
        self.buffers = [name for name, _ in hf.named_buffers()]
        self.training = [m.training for m in hf.modules()]
        self.config = hf.config.to_dict()
        self.attention = hf.config._attn_implementation
        self.generation = hf.generation_config.to_dict()
        self.generate = hf.generate
        self.classes = [type(m) for m in hf.modules()]

    def check(self, hf: Any) -> None:
        """Fail if the model differs from the snapshot."""
        now = Snapshot(hf)
        assert list(now.state) == list(self.state)
        for name, value in self.state.items():
            assert same_bits(now.state[name], value), name
        for field in vars(self):
            if field != "state":
                assert getattr(now, field) == getattr(self, field), field


_TRANSFORMERS_OWN = {"_output_capturing_hooks_installed"}
