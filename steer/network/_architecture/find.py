"""Find the parts of a model from its text configuration and structure; a forward verifies them."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, TypedDict, cast

from torch import nn

from steer.errors import ArchitectureError
from steer.network._architecture.architecture import Architecture, in_order
from steer.network._architecture.head import logit_rules, projection_of
from steer.network._architecture.probe import original
from steer.network._architecture.refused import refused
from steer.network._architecture.tree import (
    NO_NORM,
    Tree,
    block_counts,
    by_hand,
    is_norm,
    lists_as_text,
)
from steer.network._architecture.verify import verify_architecture

_METHODS = {"embedding": "get_input_embeddings", "unembedding": "get_output_embeddings"}


class PartNames(TypedDict, total=False):
    """Dotted names of parts that are given by hand, as `find_architecture` takes them."""

    blocks: str | None
    final_norm: str | None
    unembedding: str | None
    embedding: str | None


def find_architecture(
    model: nn.Module,
    *,
    blocks: str | None = None,
    final_norm: str | None = None,
    unembedding: str | None = None,
    embedding: str | None = None,
    verify: bool = True,
) -> Architecture:
    """Find the decoder blocks, final norm, embedding and unembedding of a causal language model.

    Args:
        model: Any `AutoModelForCausalLM`, or a wrapper that passes attributes on (PEFT,
            torch.compile).
        blocks: Dotted name of the list of decoder blocks, if it is not found automatically.
        final_norm: Dotted name of the norm after the last block; ``"none"`` if there is none.
        unembedding: Dotted name of the map from the residual stream to the vocabulary.
        embedding: Dotted name of the token embedding.
        verify: Run the model twice on three short rows. Every block must run once and in order,
            `Architecture.unembed` must give the model's logits, no token may affect earlier ones,
            and padding on the right must change nothing. If the parts do not hold, others are
            tried, except for parts named by hand. Training flags, hooks and random state are left
            unchanged.

    Returns:
        The parts and their names.

    Raises:
        ArchitectureError: A part is not found or fails a check, or the model is not causal.
    """
    model = original(model)
    tree, config = Tree(model), _text_config(model)
    parts: dict[str, nn.Module] = {
        "embedding": _part(tree, "embedding", embedding),
        "unembedding": _part(tree, "unembedding", unembedding),
    }
    names = {part: tree.name(module) or "" for part, module in parts.items()}
    if blocks is None:
        lists = _block_lists(tree, names["embedding"], config, several=verify)
    else:
        lists = [_named_blocks(tree, blocks, config, any_length=verify)]
    candidates = [
        _with_blocks(tree, config, parts, {**names, "blocks": name}, final_norm) for name in lists
    ]
    if not verify:
        return candidates[0]
    given = {"final_norm": final_norm, "unembedding": unembedding}
    return verify_architecture(candidates, {part for part, name in given.items() if name})


def _with_blocks(
    tree: Tree,
    config: Any,
    parts: dict[str, nn.Module],
    names: dict[str, str],
    final_norm: str | None,
) -> Architecture:
    """Return the parts around one list of blocks."""
    found = list(cast(nn.ModuleList, tree.modules[names["blocks"]]))
    names["body"] = tree.meeting(names["blocks"], names["embedding"])
    body = tree.modules[names["body"]]
    names["final_norm"] = final_norm or _norm_name(tree, names["blocks"])
    no_norm = names["final_norm"] == NO_NORM
    norm = nn.Identity() if no_norm else tree.at("final_norm", names["final_norm"])
    projection = projection_of(config, tree.root, body)
    if projection is not None:
        names["projection"] = tree.name(projection) or ""
    return Architecture(
        model=tree.root,
        body=body,
        blocks=tuple(found),
        final_norm=norm,
        projection=projection,
        logit_rules=logit_rules(config),
        names=MappingProxyType(in_order(names)),
        n_layers=len(found),
        d_model=config.hidden_size,
        vocab=getattr(parts["unembedding"], "out_features", config.vocab_size),
        **parts,
    )


def _text_config(model: nn.Module) -> Any:
    """Return the text configuration of a model, or refuse one without sizes or with an encoder."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        raise _no_causal_lm(model, f"{type(model).__name__} without a Hugging Face config")
    if getattr(config, "is_encoder_decoder", False):
        raise _no_causal_lm(model, f"{type(model).__name__}, an encoder-decoder")
    text = config.get_text_config(decoder=True)
    fields = ("num_hidden_layers", "hidden_size", "vocab_size")
    if missing := [f for f in fields if not isinstance(getattr(text, f, None), int)]:
        raise _no_causal_lm(model, f"{type(text).__name__} without {', '.join(missing)}")
    return text


def _no_causal_lm(model: nn.Module, found: str) -> ArchitectureError:
    return refused(
        model,
        "this is not a causal language model with one stack of decoder blocks",
        found=found,
        expected="a decoder-only model whose text config has num_hidden_layers, hidden_size and "
        "vocab_size",
        do="load the model with AutoModelForCausalLM, or set the missing fields of model.config",
    )


def _part(tree: Tree, part: str, name: str | None) -> nn.Module:
    """Return an embedding by its name, or the one that the model itself reports."""
    if name is not None:
        return tree.at(part, name)
    method = _METHODS[part]
    try:
        module = getattr(tree.root, method)()
    except (AttributeError, NotImplementedError):
        module = None
    if isinstance(module, nn.Module) and tree.name(module) is not None:
        return module
    raise ArchitectureError(
        f"the {part} of {type(tree.root).__name__} is not known",
        found=f"model.{method}() gives {type(module).__name__}",
        expected="one of the model's own modules",
        do="load the model with AutoModelForCausalLM, or " + by_hand(**{part: None}),
    )


def _block_lists(tree: Tree, embedding: str, config: Any, *, several: bool) -> list[str]:
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


def _named_blocks(tree: Tree, name: str, config: Any, *, any_length: bool) -> str:
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
    near = sorted(lists, key=lambda name: (-_depth(tree.meeting(name, embedding)), _depth(name)))
    return refused(
        tree.root,
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


def _norm_name(tree: Tree, blocks: str) -> str:
    """Return the name of the norm nearest to the blocks: after them, else before, else outside."""
    inner = blocks
    for scope, module in tree.upwards(blocks):
        children = [child for child, _ in module.named_children()]
        here = children.index(inner.rpartition(".")[2])
        after = [c for c in children[here + 1 :] if is_norm(module.get_submodule(c))]
        before = [c for c in children[:here] if is_norm(module.get_submodule(c))]
        if after or before:
            return ".".join(filter(None, (scope, after[0] if after else before[-1])))
        inner = scope
    return NO_NORM
