"""How far each token of a text lies along a direction, as coloured text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import number
from steer.algebra import Vector
from steer.errors import SelectionError
from steer.model import Model, check_model
from steer.network import encode_exchange
from steer.pairs import Prompt
from steer.show import Bars, Card, Chart, Row, Spans
from steer.show._look import Rgb, diverging, hexadecimal
from steer.show._rows import table_of
from steer.view._base import View
from steer.view._charts import near
from steer.view._checks import check_finite, check_kind
from steer.view._directions import units
from steer.view._tokens import tokens_of, visible

_ROOM = 0.08  # of the axis, above and below what is drawn


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Trajectory(View):
    """The projection of every token of a text.

    Args:
        tokens: The text of each token, with signs for spaces and line breaks.
        projections: `[pos]` in float64: (h · v)/‖v‖, in residual units.
        response_start: Index of the first token of the answer.
        layer: The layer.
        centre: The projection that has no colour.
        end: Distance from the centre at which the colour is full.
    """

    tokens: tuple[str, ...]
    projections: Float[Tensor, " pos"]
    response_start: int
    layer: int
    centre: float
    end: float

    @property
    def rows(self) -> list[Row]:
        """One row per token: its place, part, text and projection."""
        return [
            {
                "position": k,
                "part": "prompt" if k < self.response_start else "answer",
                "token": token,
                "projection": value,
            }
            for k, (token, value) in enumerate(
                zip(self.tokens, self.projections.tolist(), strict=True)
            )
        ]

    @property
    def title(self) -> str:
        """The layer and the scale of the colours."""
        low, high = self.centre - self.end, self.centre + self.end
        return (
            f"Projection at layer {self.layer}, in residual units · vermilion ≤ {low:.4g}, "
            f"white {self.centre:.4g}, blue ≥ {high:.4g}"
        )

    def colour(self, index: int) -> Rgb:
        """Return the colour behind a token.

        Args:
            index: Its place in the text.
        """
        return diverging((float(self.projections[index]) - self.centre) / self.end)

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The projection of each token; bars that are far out are cut off."""
        values = self.projections
        inside = near(values, self.centre)
        kept = [self.centre, *values[inside].tolist()]
        room = _ROOM * (max(kept) - min(kept))
        chart = Bars(
            f"projection at layer {self.layer} (residual units)",
            self.tokens,
            tuple(values.tolist()),
            along="tokens",
            base=self.centre,
            limits=None if bool(inside.all()) else (min(kept) - room, max(kept) + room),
            colours=tuple(hexadecimal(self.colour(k)) for k in range(len(self.tokens))),
            split=(self.response_start, "answer"),
        )
        return {"projection": chart}

    def _card(self) -> Card:
        colours = tuple(self.colour(k) for k in range(len(self.tokens)))
        values = tuple(self.projections.tolist())
        text = Spans(tuple(map(visible, self.tokens)), values, colours, self.response_start)
        table = table_of(self.rows, folded_up=True)
        return Card(self.title, (), (text, *self.panels.values(), table))


def trajectory(
    model: Model,
    vector: Vector,
    prompt: Prompt,
    response: str | None = None,
    *,
    layer: int | None = None,
    centre: float = 0.0,
    **options: Any,
) -> Trajectory:
    """Return the projection of every token of a prompt and its answer on a direction.

    p_t = (h_t · v)/‖v‖. The first token of a text is often far out. A token that would stretch
    the scale of the others several times does not count for it: the picture cuts it off, marks it
    and gives its projection. The colours are full at the distance from the centre that one in
    twenty of the other tokens exceeds.

    Args:
        model: The model; inside `with model.steered(...)` both answer and stream are steered.
        vector: A residual vector.
        prompt: The prompt.
        response: The answer; by default what the model generates.
        layer: The layer read; by default the vector's own, or the one it is tuned for.
        centre: The projection that has no colour, in residual units.
        **options: As for `model.generate`.

    Returns:
        The projections.

    Raises:
        ArgumentError: An argument has the wrong type, or `centre` is not finite.
        SelectionError: The vector has several layers and none is named, its direction is zero, or
            the stream is not finite.
        RecordingError: The vector has no direction at the layer.
        FitError: The vector has another width than the model.
        TextError: The answer has no token.
    """
    check_model(model)
    check_kind("vector", vector, Vector)
    (layer,), along = units(
        "vector", vector, [_layer(vector) if layer is None else layer], model=model
    )
    middle = number("centre", centre, do="leave it out for 0")
    if response is None:
        response = model.generate([prompt], **options)[0]
    check_kind("response", response, str)
    exchange = encode_exchange(model.chat, prompt, response)
    stream = model.activations([prompt], [response], layers=[layer])[0][0]
    check_finite("the stream", stream)
    found = stream.double().cpu() @ along[0]
    end = float(torch.quantile((found[near(found, middle)] - middle).abs(), 0.95)) or 1.0
    tokens = tokens_of(model, exchange.ids)
    return Trajectory(tokens, found, exchange.response_start, layer, middle, end)


def _layer(vector: Vector) -> int:
    if vector.tuning is not None and vector.tuning.layer in vector.layers:
        return vector.tuning.layer
    layers: Sequence[int] = vector.layers
    if len(layers) != 1:
        raise SelectionError(
            "the vector does not say which layer to read",
            found=f"layers {list(layers)}",
            expected="one",
            do="name it: layer=3",
        )
    return layers[0]
