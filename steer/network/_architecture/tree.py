"""The modules of a model by dotted name."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from steer.errors import ArchitectureError

NO_NORM = "none"  # the name of the final norm where there is none
# fields with the number of blocks; the first may count those of an encoder, or halves of blocks
_COUNTS = ("num_hidden_layers", "decoder_layers", "num_decoder_layers", "num_layers")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


class Tree:
    """The modules of one model by dotted name; the root has the empty name."""

    def __init__(self, model: nn.Module) -> None:
        self.root = model
        self.modules = dict(model.named_modules())
        self._names = {id(module): name for name, module in self.modules.items()}

    def name(self, module: nn.Module) -> str | None:
        """Return the dotted name of a module, or None if it is not in the model."""
        return self._names.get(id(module))

    def at(self, part: str, name: str) -> nn.Module:
        """Return the module that was named by hand."""
        try:
            return self.root.get_submodule(name)
        except AttributeError as error:
            above = name.rpartition(".")[0]
            near = self.modules.get(above, self.root)
            raise ArchitectureError(
                f"{part}={name!r} names no module of {type(self.root).__name__}",
                found=f"{above or 'the model'} has {[child for child, _ in near.named_children()]}",
                expected="a dotted name as in model.named_modules()",
                do=f"correct {part}=…, or leave it out to have it searched",
            ) from error

    def lists(self) -> dict[str, nn.ModuleList]:
        """Return every `nn.ModuleList` by name, in the order of the model."""
        return {n: m for n, m in self.modules.items() if isinstance(m, nn.ModuleList)}

    def meeting(self, *names: str) -> str:
        """Return the name of the smallest callable module that holds all the named ones."""
        common: list[str] = []
        for level in zip(*(name.split(".")[:-1] for name in names), strict=False):
            if len(set(level)) > 1:
                break
            common.append(level[0])
        while common and isinstance(self.modules[".".join(common)], _CONTAINERS):
            common.pop()
        return ".".join(common)

    def upwards(self, name: str) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules around a named one, from the innermost to the root."""
        while name:
            name = name.rpartition(".")[0]
            yield name, self.modules[name]


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm by its class."""
    return "norm" in type(module).__name__.lower()


def lists_as_text(lists: dict[str, nn.ModuleList], limit: int = 8) -> str:
    """Return names, lengths and classes of module lists, the ones inside others left out."""
    outer = {n: m for n, m in lists.items() if not any(n.startswith(f"{o}.") for o in lists)}
    lines = [f"{name} ({len(m)} × {classes(m)})" for name, m in outer.items()]
    more = f", and {len(lines) - limit} more" if len(lines) > limit else ""
    return ", ".join(lines[:limit]) + more if lines else "no nn.ModuleList"


def classes(modules: Iterable[nn.Module]) -> str:
    """Return the class names in a list of modules, each once."""
    return " / ".join(dict.fromkeys(type(module).__name__ for module in modules))


def by_hand(**names: str | None) -> str:
    """Return what to write to name the parts by hand."""
    shown = ", ".join(f'{part}="{name or "…"}"' for part, name in names.items())
    return (
        f"name the parts by hand: find_architecture(model, {shown}); "
        "Model.from_pretrained(…) takes the same arguments"
    )


def block_counts(config: Any) -> tuple[int, ...]:
    """Return the different numbers of blocks that a text configuration states."""
    counts = [getattr(config, field, None) for field in _COUNTS]
    return tuple(dict.fromkeys(count for count in counts if isinstance(count, int)))
