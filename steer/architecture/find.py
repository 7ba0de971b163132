"""Find the parts of a model by its text config and its structure, never by counting names.

The blocks are the `nn.ModuleList` of exactly ``num_hidden_layers`` entries that meets the token
embedding in the smallest module: the blocks of a vision tower meet it further out.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from steer.architecture.architecture import Architecture
from steer.architecture.head import logit_rules, projection_place
from steer.architecture.tree import Tree, by_hand, listed
from steer.architecture.verify import verify_architecture
from steer.errors import ArchitectureError

NO_NORM = "none"


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
        model: Any `AutoModelForCausalLM`, or what wraps one and passes attributes on (PEFT).
        blocks: Dotted name of the list of decoder blocks, if it is not found by itself.
        final_norm: Dotted name of the norm after the last block; ``"none"`` for a model that
            has none.
        unembedding: Dotted name of the map from the residual stream to the vocabulary.
        embedding: Dotted name of the token embedding.
        verify: Run the model once on eight tokens and check that every block runs once, in
            order, and that `Architecture.unembed` gives the model's own logits. Parts that were
            named by hand are checked in the same way. Training flags, hooks and random state
            are left as they were.

    Returns:
        The parts and their names.

    Raises:
        ArchitectureError: A part is not found, or is not what it should be.
    """
    tree, sizes = Tree(model), _Sizes.of(model)
    parts: dict[str, nn.Module] = {
        "embedding": _embedding(tree, embedding),
        "unembedding": _unembedding(tree, unembedding),
    }
    names = {part: tree.name(module) or "" for part, module in parts.items()}
    names["blocks"] = blocks or _blocks_name(tree, names["embedding"], sizes)
    found = _block_list(tree, names["blocks"], sizes)
    names["body"] = tree.meeting(names["blocks"], names["embedding"])
    parts["body"] = tree.modules[names["body"]]
    names["final_norm"] = final_norm or _norm_name(tree, names["blocks"])
    no_norm = names["final_norm"] == NO_NORM
    parts["final_norm"] = nn.Identity() if no_norm else tree.at("final_norm", names["final_norm"])
    projection = _projection(tree, parts["body"], sizes.config)
    if projection is not None:
        names["projection"] = tree.name(projection) or ""
    order = ("body", "embedding", "blocks", "final_norm", "projection", "unembedding")
    architecture = Architecture(
        model=model,
        blocks=tuple(found),
        projection=projection,
        logit_rules=logit_rules(sizes.config),
        names=MappingProxyType({part: names[part] for part in order if part in names}),
        n_layers=len(found),
        d_model=sizes.d_model,
        vocab=getattr(parts["unembedding"], "out_features", sizes.vocab),
        **parts,
    )
    if verify:
        verify_architecture(architecture)
    return architecture


@dataclass(frozen=True)
class _Sizes:
    """What the text config says."""

    config: Any
    n_layers: int
    d_model: int
    vocab: int

    @classmethod
    def of(cls, model: nn.Module) -> "_Sizes":
        """Read the text config of a model.

        Raises:
            ArchitectureError: There is none, it lacks a size, or the model has an encoder.
        """
        config: Any = getattr(model, "config", None)
        if not hasattr(config, "get_text_config"):
            raise _no_causal_lm(f"{type(model).__name__} without a Hugging Face config")
        if getattr(config, "is_encoder_decoder", False):
            raise _no_causal_lm(f"{type(model).__name__}, an encoder-decoder")
        text = config.get_text_config(decoder=True)
        fields = ("num_hidden_layers", "hidden_size", "vocab_size")
        sizes = {field: getattr(text, field, None) for field in fields}
        if missing := [field for field, size in sizes.items() if not isinstance(size, int)]:
            raise _no_causal_lm(f"{type(text).__name__} without {', '.join(missing)}")
        return cls(text, *(int(size) for size in sizes.values() if size is not None))


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


def _blocks_name(tree: Tree, embedding: str, sizes: _Sizes) -> str:
    """Return the name of the only module list that can hold the decoder blocks."""
    lists = tree.lists()
    fitting = {name: m for name, m in lists.items() if len(m) == sizes.n_layers}
    outer = [n for n in fitting if not any(n.startswith(f"{other}.") for other in fitting)]
    depth = {name: _depth(tree.meeting(name, embedding)) for name in outer}
    nearest = [name for name in outer if depth[name] == max(depth.values())]
    same_class = [name for name in nearest if len({type(block) for block in lists[name]}) == 1]
    best = same_class or nearest
    if len(best) == 1:
        return best[0]
    raise ArchitectureError(
        f"the decoder blocks of {type(tree.root).__name__} are not found",
        found=listed({name: lists[name] for name in best} or lists),
        expected=f"one nn.ModuleList of {sizes.n_layers} blocks "
        f"({type(sizes.config).__name__}.num_hidden_layers) beside {embedding}",
        do=by_hand(blocks=best[0] if best else None, final_norm=None),
    )


def _depth(name: str) -> int:
    return len(name.split(".")) if name else 0


def _block_list(tree: Tree, name: str, sizes: _Sizes) -> list[nn.Module]:
    """Return the modules of the named list, which must be as many as the config says."""
    module = tree.at("blocks", name)
    if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) == sizes.n_layers:
        return list(module)
    length = len(module) if isinstance(module, nn.ModuleList | nn.Sequential) else "no list"
    raise ArchitectureError(
        f"blocks={name!r} is not the list of decoder blocks",
        found=f"{type(module).__name__} ({length}); lists in the model: {listed(tree.lists())}",
        expected=f"{sizes.n_layers} blocks ({type(sizes.config).__name__}.num_hidden_layers)",
        do="name the list of all decoder blocks, or leave blocks=… out to have it searched",
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
        after = [c for c in children[here + 1 :] if _is_norm(module.get_submodule(c))]
        before = [c for c in children[:here] if _is_norm(module.get_submodule(c))]
        if after or before:
            return ".".join(filter(None, (scope, after[0] if after else before[-1])))
        inner = scope
    return NO_NORM


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _projection(tree: Tree, body: nn.Module, config: Any) -> nn.Module | None:
    """Return the module between final norm and unembedding, in the families that have one."""
    place = projection_place(config)
    if place is None:
        return None
    owner, name = place
    module = getattr(body if owner == "body" else tree.root, name, None)
    return module if isinstance(module, nn.Module) else None
