"""What both kinds of choice can do: steer a model, be saved, and be reported on."""

import os
from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from steer.composition import Composed
from steer.evaluate.table import Tabled
from steer.model import Model
from steer.steered import Steered
from steer.store.folder import save_by_domain
from steer.vector import Vector

if TYPE_CHECKING:
    from steer.report import Report


class Chosen(Tabled):
    """A setting that was chosen; its `composition` is what `lm.steered(choice)` steers with."""

    __slots__ = ()

    @property
    @abstractmethod
    def vectors(self) -> dict[str, Vector]:
        """The vector of each domain with the setting as its tuning, and with the gate if any."""

    def apply(self, model: Model) -> Steered:
        """Return a context in which a model is steered as chosen.

        Args:
            model: The model that the choice was made on.

        Raises:
            FitError: A vector does not fit this model.
        """
        return model.steered(cast(Composed, self))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the vector of each domain, with its setting, to `<folder>/<domain>.safetensors`.

        `choice.vectors[domain].save(path)` writes one under another name.

        Args:
            folder: Where to; it is made if it does not exist.

        Raises:
            VectorFileError: A file cannot be written, or a file is named in place of a folder.
            CompositionError: The name of a domain cannot be that of a file.
        """
        save_by_domain(self.vectors, folder)

    def report(self, title: str = "Steering report") -> "Report":
        """Return this result as a page.

        Args:
            title: Title of the page.
        """
        from steer.report import Report

        return Report.of(self, title=title)
