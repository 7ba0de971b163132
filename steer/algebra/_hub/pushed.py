"""What can be written to the Hugging Face Hub: vectors by domain, with a model card."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from steer.show import Shown

if TYPE_CHECKING:
    from steer.algebra._vector import Vector


class Pushed(Shown):
    """A value that writes itself to a repository of the Hub: a vector, or a composition."""

    __slots__ = ()

    @abstractmethod
    def _to_push(self) -> "Mapping[str, Vector]":
        """Return the vector of each domain, with its setting as tuning."""

    def push_to_hub(
        self,
        repo: str,
        *results: Shown | str,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Write the vector of each domain to one repository of the Hub, with a model card.

        Each file is named after its domain. The card states the setting, its figures, its limits,
        and how to use the files with and without this library. Of a composition, each tuning
        records coefficient, operator and scope, a tuning with another setting is replaced, and the
        gate, if any, is stored with every vector.

        Args:
            repo: Id of a model repository, for instance `me/cheerful`; it is created if needed.
            *results: Further measurements for the card: a `Selection` with its baselines, a sweep,
                any other result that prints itself, or Markdown text.
            license: Licence to record in the provenance of each vector; None keeps what is there.
            private: Whether a repository that is created is private; None is the Hub's default.
            token: An access token; None takes the one you are logged in with.

        Returns:
            The commit, for `from_hub(repo, revision=…)`.

        Raises:
            VectorFileError: The Hub refuses, or the repository holds other files of tensors.
            CapabilityError: There are coefficients per prompt.
            ArgumentError: A result that the card cannot show.
            CompositionError: A domain cannot be a part of a file name.
        """
        from steer.algebra._hub.repository import push

        return push(self._to_push(), repo, results, license, private, token)
