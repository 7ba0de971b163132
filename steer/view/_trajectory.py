"""How far each token of a text lies along a direction, as coloured text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Vector
from steer.errors import SelectionError
from steer.model import Model
from steer.network import encode_exchange
from steer.pairs import Prompt
from steer.show import Row
from steer.show._markup import escaped
from steer.view._base import Panel, View
from steer.view._checks import check_finite, check_kind
from steer.view._directions import directions, unit
from steer.view._drawing import drawable, mark_beyond
from steer.view._far import near
from steer.view._look import OKABE_ITO, Rgb, diverging, hexadecimal, ink
from steer.view._rows import number
from steer.view._tokens import tokens_of, visible

if TYPE_CHECKING:
    from rich.text import Text

_LABELLED = 60  # tokens up to which an axis names each
_NAMED = 8  # tokens cut off up to which each has its number
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

    def __rich__(self) -> "Text":
        """Return the coloured text for `rich.print`, the answer after a bar."""
        from rich.text import Text

        text = Text(f"{self.title}\n")
        for k, token in enumerate(self.tokens):
            if k == self.response_start:
                text.append(" ▌ ")
            colour = self.colour(k)
            text.append(f"{visible(token)} ", style=f"{ink(colour)} on {hexadecimal(colour)}")
        return text

    def ansi(self) -> str:
        """Return the coloured text with escape codes of 24-bit colour, for a terminal."""
        parts = [f"{self.title}\n"]
        for k, token in enumerate(self.tokens):
            red, green, blue = self.colour(k)
            front = "38;2;0;0;0" if ink((red, green, blue)) == "#000000" else "38;2;255;255;255"
            bar = " ▌ " if k == self.response_start else ""
            parts.append(f"{bar}\x1b[{front};48;2;{red};{green};{blue}m{visible(token)} \x1b[0m")
        return "".join(parts)

    @property
    def html(self) -> str:
        """The coloured text as HTML; each token tells its projection when pointed at."""
        spans = []
        for k, (token, value) in enumerate(
            zip(self.tokens, self.projections.tolist(), strict=True)
        ):
            colour = self.colour(k)
            bar = (
                "margin-left:0.8em;border-left:3px solid #000;" if k == self.response_start else ""
            )
            spans.append(
                f"<span title='{value:.4g}' style='{bar}background:{hexadecimal(colour)};"
                f"color:{ink(colour)};padding:1px 2px;margin:1px'>{escaped(visible(token))}</span>"
            )
        return f"<div style='line-height:1.9;font-family:monospace'>{' '.join(spans)}</div>"

    def _repr_html_(self) -> str:
        return f"<p>{escaped(self.title)}</p>{self.html}{self._image()}"

    @property
    def panels(self) -> Mapping[str, Panel]:
        """The projection along the text, without the length of bars that are far out."""
        width = max(5.0, min(11.0, 1.5 + 0.2 * len(self.tokens)))
        return {"projection": Panel(self._draw, width, 3.2)}

    def _draw(self, ax: Any) -> None:
        places = range(len(self.tokens))
        colours = [hexadecimal(self.colour(k)) for k in places]
        ax.bar(
            places,
            (self.projections - self.centre).tolist(),
            bottom=self.centre,
            color=colours,
            edgecolor="black",
            linewidth=0.5,
        )
        ax.axhline(self.centre, color="black", linewidth=0.8)
        ax.axvline(self.response_start - 0.5, color=OKABE_ITO[-1], linewidth=1, linestyle="--")
        if len(self.tokens) <= _LABELLED:
            ax.set_xticks(places, [drawable(t) for t in self.tokens], parse_math=False)
            ax.tick_params(axis="x", rotation=90, labelsize=7)
        else:
            ax.set_xlabel("token")
        ax.margins(x=0.01)
        self._cut(ax)
        ax.set_ylabel(f"projection at layer {self.layer}\n(residual units)")
        ax.annotate(
            "answer →",
            (self.response_start - 0.4, 1.0),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            va="bottom",
        )

    def _cut(self, ax: Any) -> None:
        """Scale the axis without the tokens that are far out, and mark where it cuts these off."""
        values = self.projections
        inside = near(values, self.centre)
        far = [k for k, shown in enumerate(inside.tolist()) if not shown]
        if not far:
            return
        kept = [self.centre, *values[inside].tolist()]
        room = _ROOM * (max(kept) - min(kept))
        ax.set_ylim(min(kept) - room, max(kept) + room)
        for k in far:
            mark_beyond(ax, k, float(values[k]), named=len(far) <= _NAMED)
        right = self.response_start <= len(values) / 2  # away from where the answer begins
        ax.annotate(
            f"▲▼ cut off: {len(far)} of {len(values)} tokens",
            (1.0 if right else 0.0, 1.0),
            xycoords="axes fraction",
            fontsize=8,
            ha="right" if right else "left",
            va="bottom",
        )


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
        SelectionError: The vector has several layers and none is named, its direction is zero, an
            argument of another kind, or a stream that is not finite.
        RecordingError: The vector has no direction at the layer.
        FitError: The vector has another width than the model.
        TextError: The answer has no token.
    """
    check_kind("model", model, Model)
    check_kind("vector", vector, Vector)
    wanted, rows = directions(
        vector, [_layer(vector) if layer is None else layer], width=model.d_model
    )
    along, middle = unit(wanted, rows)[0], number(centre)
    if middle is None or not math.isfinite(middle):
        raise SelectionError(
            "the centre of the colours cannot be used",
            found=f"centre={centre!r}"[:120],
            expected="a finite number, in residual units",
            do="leave it out for 0",
        )
    if response is None:
        response = model.generate([prompt], **options)[0]
    check_kind("response", response, str)
    exchange = encode_exchange(model.chat, prompt, response)
    stream = model.activations([prompt], [response], layers=wanted)[0][0]
    check_finite("the stream", stream)
    found = stream.double().cpu() @ along
    end = float(torch.quantile((found[near(found, middle)] - middle).abs(), 0.95)) or 1.0
    tokens = tokens_of(model, exchange.ids)
    return Trajectory(tokens, found, exchange.response_start, wanted[0], middle, end)


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
