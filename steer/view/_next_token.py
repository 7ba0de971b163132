"""What the model would say next, read at every layer, before and after steering."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_integer, integer, one_of
from steer.algebra import CoefficientsLike, Composition, Part, Vector
from steer.model import Model, check_model
from steer.pairs import Prompt
from steer.show import Chart, Curves, Row
from steer.view._base import View
from steer.view._charts import LAYER, zipped
from steer.view._checks import check_finite, check_kind
from steer.view._tokens import Ranked, ranked, ranked_matrix, ranked_rows, tokens_of


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class NextToken(View):
    """The distribution of the next token at every layer, unsteered and steered.

    Args:
        before: `[layer vocab]`: log-probabilities without steering, in nats.
        after: `[layer vocab]`: with steering.
        tokens: The text of each token.
        k: Tokens shown.
    """

    before: Float[Tensor, "layer vocab"]
    after: Float[Tensor, "layer vocab"]
    tokens: tuple[str, ...]
    k: int

    @property
    def kl(self) -> Float[Tensor, " layer"]:
        """KL(after ‖ before) at each layer, in nats."""
        return (self.after.exp() * (self.after - self.before)).sum(dim=-1)

    def top(self, when: str, layer: int) -> Ranked:
        """Return the likeliest tokens with their probabilities.

        Args:
            when: `before` or `after`.
            layer: The layer (block output, 0-based).

        Raises:
            ArgumentError: It is neither, or there is no such layer.
        """
        one_of("reading", when, ("before", "after"))
        one_of("layer", as_integer(layer), range(len(self.before)))
        held = self.before if when == "before" else self.after
        return ranked(held[layer].exp(), self.tokens, self.k)

    @property
    def rows(self) -> list[Row]:
        """One row per layer and rank: token and probability before and after, and the KL."""
        kl, names = self.kl.tolist(), ("before", "p before", "after", "p after")
        before, after = partial(self.top, "before"), partial(self.top, "after")
        found = ranked_rows(range(len(kl)), names, before, after)
        return [row | {"KL (nats)": kl[row["layer"]]} for row in found]

    @property
    def title(self) -> str:
        """What the last layer says, before and after."""
        last = len(self.before) - 1
        old, new = self.top("before", last)[0], self.top("after", last)[0]
        return (
            f"Next token by layer · model: {old[0]!r} {old[1]:.0%} before, "
            f"{new[0]!r} {new[1]:.0%} after"
        )

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The likeliest tokens before, those after, and the KL between both by layer."""
        layers = range(len(self.before))
        found: dict[str, Chart] = {
            when: ranked_matrix(
                "probability",
                layers,
                partial(self.top, when),
                (0.0, 1.0),
                down="layer",
                title=when,
            )
            for when in ("before", "after")
        }
        points = {"": zipped(layers, self.kl)}
        label = "KL(after ‖ before) (nats)"
        return found | {"KL": Curves(label, LAYER, points, limits=(0.0, None), whole=True)}


def next_token(
    model: Model,
    what: Vector | Part | Composition | Mapping[str, Vector | Part],
    prompt: Prompt,
    coefficients: CoefficientsLike | None = None,
    *,
    begun: str | None = None,
    k: int = 5,
) -> NextToken:
    """Return the next-token distribution that each layer holds, before and after steering.

    p_l = softmax(unembed(h_l)) at the last token (the logit lens, with the model's final norm and
    all that it puts on its logits). At the last layer this is the model's own distribution; what
    earlier layers hold is a reading of them, which the model need not follow.

    Args:
        model: The model; what steers it already stays in both.
        what: As for `model.steered`.
        prompt: The prompt.
        coefficients: As for `model.steered`.
        begun: The beginning of an answer, after which the next token is read.
        k: Tokens shown.

    Returns:
        Both distributions at every layer.

    Raises:
        TextError: The prompt cannot be rendered.
        ArgumentError: An argument has the wrong type, or `k` is not a positive integer.
        SelectionError: The stream is not finite.
    """
    check_model(model)
    integer("k", k, least=1)
    if begun is not None:
        check_kind("begun", begun, str)
    steering = model.steered(what, coefficients)
    before = _read(model, prompt, begun)
    with steering:
        after = _read(model, prompt, begun)
    return NextToken(before, after, tokens_of(model), min(k, before.shape[-1]))


def _read(model: Model, prompt: Prompt, begun: str | None) -> Float[Tensor, "layer vocab"]:
    stream = model.activations([prompt], None if begun is None else [begun])[0][:, -1]
    with torch.no_grad():
        logits = torch.cat([model.architecture.unembed(h[None]) for h in stream])
    check_finite("the distribution", stream)
    return torch.log_softmax(logits.double(), dim=-1).cpu()
