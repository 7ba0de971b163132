"""Errors for models that fail verification, with the reason where it is known."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from steer.errors import ArchitectureError
from steer.network._architecture.architecture import Architecture
from steer.network._architecture.tree import by_hand, classes

# config field of families without one residual stream -> what they have instead; looked up only
# after a check has failed, so that no model is refused for its name
_INSTEAD: Mapping[str, Callable[[Any], str]] = {
    "altup_num_inputs": lambda n: f"AltUp runs {n} streams side by side",
    "hc_mult": lambda n: f"hyper-connections mix {n} streams around every block",
    "hc_count": lambda n: f"hyper-connections mix {n} streams around every block",
    "n_layers_per_attn_res_block": lambda _: (
        "attention residuals read the outputs of several earlier blocks in place of one stream"
    ),
    "ngram": lambda n: f"n-gram prediction runs {n} streams beside that of the text",
    "H_cycles": lambda _: "its blocks run in loops, each several times in a forward",
    "lsh_attn_chunk_length": lambda _: "reversible blocks carry two streams",
    "encoder_hash_byte_group_size": lambda _: (
        "bytes run through a local encoder, a model over patches and a local decoder"
    ),
    "num_codebooks": lambda n: f"every position holds tokens of {n} codebooks, not one of a text",
    "prompt_length": lambda n: f"it puts {n} tokens of its own in front of every text",
    "mem_len": lambda _: "its stream is [pos, batch, d_model], and tokens attend to later ones",
    "backbone_hidden_size": lambda _: "it drafts for another model and reads that model's states",
}


def refused(
    model: nn.Module, what: str, *, found: str, expected: str, do: str
) -> ArchitectureError:
    """Return the error of a check that fails, or why the model has no stream if that is known."""
    if not (reason := instead_of_a_stream(model)):
        return ArchitectureError(what, found=found, expected=expected, do=do)
    return ArchitectureError(
        f"{type(model).__name__} has no single residual stream to steer: {reason}",
        found=f"{what}: {found}",
        expected="one stream [batch, pos, d_model] that every block reads and writes once",
        do="take another model: no name given by hand changes this (docs/limits.md lists such "
        "families)",
    )


def wrong_part(
    architecture: Architecture, what: str, *, found: str, expected: str
) -> ArchitectureError:
    """Return the error for parts that do not hold, which may be named by hand instead."""
    do = f"if these are wrong, {by_hand(**names_in_use(architecture))}"
    return refused(architecture.model, what, found=found, expected=expected, do=do)


def instead_of_a_stream(model: nn.Module) -> str:
    """Return what a model is known to have in place of one residual stream, in a clause."""
    config: Any = getattr(model, "config", None)
    inner = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else None
    for holder in (config, inner):
        for field, said in _INSTEAD.items():
            if value := getattr(holder, field, None):
                return said(value)
    return ""


def names_in_use(architecture: Architecture) -> dict[str, str]:
    """Return the names of the parts that can be named by hand."""
    parts = ("blocks", "final_norm", "unembedding", "embedding")
    return {part: architecture.names[part] for part in parts}


def part_name(architecture: Architecture, part: str) -> str:
    """Return the name and class of a part."""
    name = architecture.names[part] or "(the model itself)"
    found = getattr(architecture, part)
    if part == "blocks":
        return f"{name} ({architecture.n_layers} × {classes(found)})"
    return f"{name} ({type(found).__name__})"
