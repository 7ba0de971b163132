"""Refuses to write or load weights while a setting is merged into some of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from steer.engine.patches import Uncopied, replace
from steer.engine.weights.uses import owners
from steer.errors import SteeringError

_WRITERS = ("save_pretrained", "push_to_hub")


def guard(
    model: nn.Module, names: Sequence[str], undo: Callable[[Callable[[], None]], object]
) -> None:
    """Guard merged parameters until what is handed over is called.

    `state_dict` is guarded at the modules that hold them, so that it is refused however it is
    reached; the writers of `transformers` also, since they make folders and repositories first.

    Args:
        model: The causal model.
        names: The parameters that are merged into.
        undo: Is given what takes each guard away again, to be called in reverse order.
    """
    for writer in _WRITERS:
        if hasattr(model, writer):
            replace(model, writer, Uncopied(_refuse_writing), undo)
    held = owners(model)
    for name in names:
        for owner, leaf in held.get(name, ()):
            module, loading = model.get_submodule(owner), Uncopied(_refusing_to_load(leaf))
            undo(module.register_state_dict_pre_hook(Uncopied(_refuse_writing)).remove)
            undo(module.register_load_state_dict_pre_hook(loading).remove)


def _refuse_writing(*_: object, **__: object) -> None:
    raise SteeringError(
        "the weights cannot be saved while a setting is merged into them",
        found="save_pretrained, push_to_hub or state_dict inside steered()",
        expected="the base weights: some of them hold merged values now",
        do="leave the context first; to write a merged model use steer.merge_checkpoint(...)",
    )


def _refusing_to_load(leaf: str) -> Callable[..., None]:
    def refuse(
        module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object, **__: object
    ) -> None:
        if f"{prefix}{leaf}" in state:
            raise SteeringError(
                "weights cannot be loaded while a setting is merged into them",
                found=f"load_state_dict with {prefix}{leaf} inside steered()",
                expected="loading into the base weights",
                do="leave the context first, and steer the loaded model",
            )

    return refuse
