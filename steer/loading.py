"""A tokenizer from the place where its model is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steer.errors import TextError

_OF_BOTH = (  # options of `from_pretrained` that say where to find model and tokenizer
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)


def shared_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a model's `from_pretrained` that say where its files are.

    Args:
        options: The options given for the model.
    """
    return {name: options[name] for name in _OF_BOTH if name in options}


def load_tokenizer(name: str | Path, options: Mapping[str, Any]) -> Any:
    """Return the tokenizer that stands beside a model.

    Args:
        name: Hub id or directory of the model.
        options: The options given for the model; those that say where files are hold here too.

    Raises:
        OSError: There is no such model.
        TextError: It has no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(name), **shared_options(options))
    except ValueError as error:
        raise TextError(
            "this model has no tokenizer that can be read",
            found=f"{name}: {error}",
            expected="a tokenizer beside the weights (tokenizer.json, tokenizer_config.json)",
            do="save it there: tokenizer.save_pretrained(directory)",
        ) from error
