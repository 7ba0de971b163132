"""One setting of a composition, merged into the model's weights until it leaves.

Meanwhile the weights can be neither saved nor loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from steer.algebra import Composition
from steer.engine._patches import Uncopied, Undo, replace
from steer.engine._weights.plan import WeightTerm
from steer.errors import SteeringError
from steer.merge import merger_of

_WRITERS = ("save_pretrained", "push_to_hub")


class Merging:
    """The merged weight sites of one active composition, which may have none."""

    def __init__(self, model: nn.Module, entries: Sequence[WeightTerm]) -> None:
        self._merger = merger_of(model)
        self._entries = entries
        self.names = tuple(dict.fromkeys(entry.name for entry in entries))

    def merge(self, composition: Composition) -> None:
        """Merge a setting, in place of an earlier one; if that fails, nothing changes."""
        c = composition.coefficients[0].tolist()
        self._merger.merge(self, [(e.name, e.term, c[e.column]) for e in self._entries])

    def check(self) -> None:
        """Raise if something else has written to the merged weights."""
        self._merger.check()

    def leave(self) -> None:
        """Take them out again, bit for bit."""
        self._merger.leave(self)


def guard(model: nn.Module, names: Sequence[str], undo: Undo) -> None:
    """Guard merged parameters until the functions given to `undo` are called.

    `state_dict` is guarded at the modules that hold them, so that it is refused however it is
    reached; the writers of `transformers` also, since they make folders and repositories first.
    Loading is guarded at the modules around them too, before anything else is loaded.
    """
    for writer in _WRITERS if names else ():
        if hasattr(model, writer):
            replace(model, writer, _WRITING, undo)
    merged = {id(model.get_parameter(name)) for name in names}
    for module in model.modules() if names else ():
        inside = [n for n, p in module.named_parameters(remove_duplicate=False) if id(p) in merged]
        if inside:
            loading = Uncopied(_refusing_to_load(inside))
            undo(module.register_load_state_dict_pre_hook(loading).remove)
        if any(id(p) in merged for p in module._parameters.values()):
            undo(module.register_state_dict_pre_hook(_WRITING).remove)


def _refuse_writing(*_: object, **__: object) -> None:
    raise SteeringError(
        "the weights cannot be saved while a setting is merged into them",
        found="save_pretrained, push_to_hub or state_dict inside steered()",
        expected="the base weights: some of them hold merged values now",
        do="leave the context first; to write a merged model use steer.merge_checkpoint(...)",
    )


_WRITING = Uncopied(_refuse_writing)


def _refusing_to_load(names: Sequence[str]) -> Callable[..., None]:
    def refuse(
        module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object, **__: object
    ) -> None:
        found = [f"{prefix}{name}" for name in names if f"{prefix}{name}" in state]
        if found:
            raise SteeringError(
                "weights cannot be loaded while a setting is merged into them",
                found=f"load_state_dict with {found[0]} inside steered()",
                expected="loading into the base weights",
                do="leave the context first, and steer the loaded model",
            )

    return refuse
