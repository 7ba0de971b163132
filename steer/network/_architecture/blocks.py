"""The search for the list of decoder blocks."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from steer.errors import ArchitectureError
from steer.network._architecture.refused import instead_of_a_stream, no_single_stream
from steer.network._architecture.tree import Tree, by_hand, lists_as_text

# fields with the number of blocks; the first may count those of an encoder, or halves of blocks
_COUNTS = ("num_hidden_layers", "decoder_layers", "num_decoder_layers", "num_layers")


def block_counts(config: Any) -> tuple[int, ...]:
    """Return the different numbers of blocks that a text configuration states."""
    counts = [getattr(config, field, None) for field in _COUNTS]
    return tuple(dict.fromkeys(count for count in counts if isinstance(count, int)))


def block_lists(tree: Tree, embedding: str, config: Any, *, several: bool) -> list[str]:
    """Return the names of lists that may be the decoder blocks, the likeliest first.

    They have as many entries as configured, and the smallest module around them and the token
    embedding lies deepest. Among these, shorter names come first, as vision towers nest deeper.
    """
    lists, counts = tree.lists(), block_counts(config)
    fitting = {name: m for name, m in lists.items() if len(m) in counts}
    outer = [n for n in fitting if not any(n.startswith(f"{other}.") for other in fitting)]
    depth = {name: _depth(tree.meeting(name, embedding)) for name in outer}
    nearest = [name for name in outer if depth[name] == max(depth.values())]
    same_class = [name for name in nearest if len({type(block) for block in lists[name]}) == 1]
    best = sorted(same_class or nearest, key=_depth)
    if not best or (len(best) > 1 and not several):
        raise _not_found(tree, embedding, config, best)
    return best


def named_blocks(tree: Tree, name: str, config: Any, *, any_length: bool) -> str:
    """Return a name given by hand, or refuse it if it names no list of blocks."""
    module, counts = tree.at("blocks", name), block_counts(config)
    length = len(module) if isinstance(module, nn.ModuleList | nn.Sequential) else 0
    if length and (any_length or length in counts):
        return name
    raise ArchitectureError(
        f"blocks={name!r} is not the list of decoder blocks",
        found=f"{type(module).__name__} ({length or 'no list'}); lists in the model: "
        f"{lists_as_text(tree.lists())}",
        expected=_expected(config),
        do="name the list of all decoder blocks, or leave blocks=… out to have it searched",
    )


def _not_found(
    tree: Tree, embedding: str, config: Any, candidates: Sequence[str]
) -> ArchitectureError:
    """Return the error if no list fits, or several fit and cannot be verified."""
    lists, kind = tree.lists(), type(tree.root).__name__
    found = lists_as_text({name: lists[name] for name in candidates} or lists)
    if reason := instead_of_a_stream(tree.root):
        return no_single_stream(tree.root, reason, found)
    near = sorted(lists, key=lambda name: (-_depth(tree.meeting(name, embedding)), _depth(name)))
    return ArchitectureError(
        f"the decoder blocks of {kind} are not found",
        found=found,
        expected=f"one nn.ModuleList of {_expected(config)} beside {embedding}",
        do=by_hand(blocks=[*candidates, *near, None][0], final_norm=None),
    )


def _depth(name: str) -> int:
    return len(name.split(".")) if name else 0


def _expected(config: Any) -> str:
    """Return the configured numbers of blocks with the class of the configuration."""
    counts = " or ".join(map(str, block_counts(config)))
    return f"{counts} blocks ({type(config).__name__}.num_hidden_layers)"
