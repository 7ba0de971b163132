"""Find the parts of a model by its text config and its structure; the model itself is the judge.

The blocks are an `nn.ModuleList` of as many entries as the config says that meets the token
embedding in the smallest module: the blocks of a vision tower meet it further out.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from torch import nn

from steer.errors import ArchitectureError
from steer.network._architecture.architecture import Architecture, in_order
from steer.network._architecture.blocks import block_lists, named_blocks
from steer.network._architecture.head import logit_rules, projection_place
from steer.network._architecture.probe import original
from steer.network._architecture.refused import instead_of_a_stream, no_single_stream
from steer.network._architecture.tree import NO_NORM, Tree, by_hand, is_norm
from steer.network._architecture.verify import verify_architecture


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
        model: Any `AutoModelForCausalLM`, or what wraps one and passes attributes on (PEFT). Of
            what torch.compile returns, the module inside is meant.
        blocks: Dotted name of the list of decoder blocks, if it is not found by itself.
        final_norm: Dotted name of the norm after the last block; ``"none"`` for a model that
            has none.
        unembedding: Dotted name of the map from the residual stream to the vocabulary.
        embedding: Dotted name of the token embedding.
        verify: Run the model twice on three short rows and check that every block runs once, in
            order, that `Architecture.unembed` gives the model's own logits, that no token acts on
            those before it, and that padding on the right changes nothing. Where the parts first
            found do not hold, others are tried; parts named by hand are checked and kept.
            Training flags, hooks and random state are left as they were.

    Returns:
        The parts and their names.

    Raises:
        ArchitectureError: A part is not found, or is not what it should be, or the model is not
            causal.
    """
    model = original(model)
    tree, sizes = Tree(model), _Sizes.of(model)
    parts: dict[str, nn.Module] = {
        "embedding": _embedding(tree, embedding),
        "unembedding": _unembedding(tree, unembedding),
    }
    names = {part: tree.name(module) or "" for part, module in parts.items()}
    if blocks is None:
        lists = block_lists(tree, names["embedding"], sizes.config, several=verify)
    else:
        lists = [named_blocks(tree, blocks, sizes.config, any_length=verify)]
    candidates = [
        _with_blocks(tree, sizes, parts, {**names, "blocks": name}, final_norm) for name in lists
    ]
    if not verify:
        return candidates[0]
    given = {"final_norm": final_norm, "unembedding": unembedding}
    return verify_architecture(candidates, {part for part, name in given.items() if name})


def _with_blocks(
    tree: Tree,
    sizes: "_Sizes",
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
    projection = _projection(tree, body, sizes.config)
    if projection is not None:
        names["projection"] = tree.name(projection) or ""
    return Architecture(
        model=tree.root,
        body=body,
        blocks=tuple(found),
        final_norm=norm,
        projection=projection,
        logit_rules=logit_rules(sizes.config),
        names=MappingProxyType(in_order(names)),
        n_layers=len(found),
        d_model=sizes.d_model,
        vocab=getattr(parts["unembedding"], "out_features", sizes.vocab),
        **parts,
    )


@dataclass(frozen=True)
class _Sizes:
    """What the text config says."""

    config: Any
    d_model: int
    vocab: int

    @classmethod
    def of(cls, model: nn.Module) -> "_Sizes":
        """Read the text config of a model."""
        config: Any = getattr(model, "config", None)
        if not hasattr(config, "get_text_config"):
            raise _no_causal_lm(f"{type(model).__name__} without a Hugging Face config")
        if getattr(config, "is_encoder_decoder", False):
            raise _no_causal_lm(f"{type(model).__name__}, an encoder-decoder")
        text = config.get_text_config(decoder=True)
        fields = ("num_hidden_layers", "hidden_size", "vocab_size")
        sizes = {field: getattr(text, field, None) for field in fields}
        if missing := [field for field, size in sizes.items() if not isinstance(size, int)]:
            found = f"{type(text).__name__} without {', '.join(missing)}"
            if reason := instead_of_a_stream(model):
                raise no_single_stream(model, reason, found)
            raise _no_causal_lm(found)
        return cls(text, int(text.hidden_size), int(text.vocab_size))


def _no_causal_lm(found: str) -> ArchitectureError:
    return ArchitectureError(
        "this is not a causal language model with one stack of decoder blocks",
        found=found,
        expected="a decoder-only model whose text config has num_hidden_layers, hidden_size and "
        "vocab_size",
        do="load the model with AutoModelForCausalLM, or set the missing fields of model.config",
    )


def _embedding(tree: Tree, name: str | None) -> nn.Module:
    if name is not None:
        return tree.at("embedding", name)
    return _asked(tree, "embedding", "get_input_embeddings")


def _unembedding(tree: Tree, name: str | None) -> nn.Module:
    if name is not None:
        return tree.at("unembedding", name)
    return _asked(tree, "unembedding", "get_output_embeddings")


def _asked(tree: Tree, part: str, method: str) -> nn.Module:
    """Ask the model itself for one of its two embeddings."""
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


def _norm_name(tree: Tree, blocks: str) -> str:
    """Return the norm nearest to the blocks: after them in the same module, else before, else out.

    Which of several norms follows the blocks is only known when the model runs; this is the
    order in which models declare them, and `verify_architecture` is the judge.
    """
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


def _projection(tree: Tree, body: nn.Module, config: Any) -> nn.Module | None:
    """Return the module between final norm and unembedding, in the families that have one."""
    place = projection_place(config)
    if place is None:
        return None
    owner, name = place
    module = getattr(body if owner == "body" else tree.root, name, None)
    return module if isinstance(module, nn.Module) else None
