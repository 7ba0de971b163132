"""Sites where a vector acts: the residual stream after a block, or a named parameter."""

import re
from dataclasses import dataclass

from steer._check import as_integer
from steer.errors import AlgebraError

_RESIDUAL = re.compile(r"resid_post\.(0|[1-9][0-9]{0,5})")
_MAX_LAYER = 999_999
_WEIGHT_PREFIX = "weight:"


@dataclass(frozen=True, order=True, slots=True)
class Residual:
    """The residual stream after decoder block `layer`, before any final norm.

    Args:
        layer: 0-based index of the block whose output is meant; -1 means `embed`, the input of
            block 0. A paper's "input of block l" is therefore `Residual(l - 1)`. An integer of
            a library (NumPy, torch) is kept as a plain one.

    Raises:
        AlgebraError: The layer is not an integer from -1 to 999999.
    """

    layer: int

    def __post_init__(self) -> None:
        layer = as_integer(self.layer)
        if layer is None or not -1 <= layer <= _MAX_LAYER:
            raise AlgebraError(
                "no such residual site",
                found=f"layer {self.layer!r}",
                expected=f"an integer from 0 to {_MAX_LAYER}, or -1 for the embedding output",
                do="count blocks from 0; the input of block l is layer l - 1",
            )
        object.__setattr__(self, "layer", layer)

    def __str__(self) -> str:
        return "embed" if self.layer == -1 else f"resid_post.{self.layer}"


@dataclass(frozen=True, order=True, slots=True)
class Weight:
    """A parameter by its full name in the model, for instance `lm_head.weight`.

    Args:
        name: The parameter's name in `model.named_parameters()`.

    Raises:
        AlgebraError: The name is empty, or no string.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise AlgebraError(
                "no such weight site",
                found=f"the name {self.name!r}",
                expected="a parameter's name",
                do="take the name from model.named_parameters()",
            )

    def __str__(self) -> str:
        return f"{_WEIGHT_PREFIX}{self.name}"


Site = Residual | Weight

EMBED = Residual(-1)


def parse_site(text: str) -> Site:
    """Read a site from its printed name: `str(site)` and `parse_site` are inverse.

    Args:
        text: `embed`, `resid_post.<layer>` or `weight:<parameter name>`.

    Returns:
        The site.

    Raises:
        AlgebraError: The text is no site's name.
    """
    if text == "embed":
        return EMBED
    if match := _RESIDUAL.fullmatch(text):
        return Residual(int(match.group(1)))
    if text.startswith(_WEIGHT_PREFIX) and len(text) > len(_WEIGHT_PREFIX):
        return Weight(text.removeprefix(_WEIGHT_PREFIX))
    raise AlgebraError(
        "unreadable site name",
        found=repr(text),
        expected="'embed', 'resid_post.<layer>' or 'weight:<parameter name>'",
        do="write the site as it is printed by str(site)",
    )


def site_order(site: Site) -> tuple[int, int, str]:
    """Return the sort key that puts residual sites by layer before weights by name."""
    return (0, site.layer, "") if isinstance(site, Residual) else (1, 0, site.name)
