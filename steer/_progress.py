"""The progress bar of long work."""

from collections.abc import Iterable
from typing import Any


def progress_bar(values: Iterable[Any] | None = None, /, *, progress: bool, **options: Any) -> Any:
    """Return a bar of tqdm: shown in a terminal and a notebook, and not where nobody watches."""
    from tqdm.auto import tqdm

    return tqdm(values, disable=None if progress else True, **options)
