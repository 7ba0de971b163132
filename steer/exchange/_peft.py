"""PEFT LoRA adapters: low-rank differences of weights, exact and with their sign.

PEFT computes W + (α/r) B A. A file of ours has α = r, so that B A is the term itself: its
coefficient stands on B, and a sum of domains is the factors side by side. PEFT's own combinations
of adapters are not that sum: `linear` multiplies sums of factors, `svd` truncates. All modules
have one rank, the largest, filled up with zeros, since not every reader knows ranks by module.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from steer.algebra import LowRank, Vector, Weight
from steer.errors import VectorFileError
from steer.exchange._registry import Format, register_format
from steer.store import AtomicFolder, write_bytes, write_text


def _write(vector: Vector, path: Path, *, base: str | Path) -> None:
    """Write an adapter of the model `base`, a folder or Hub id, which tells kinds of modules."""
    from steer.alignment._source import opened

    source = opened(base)
    rank = max(term.rank for term in vector.terms.values() if isinstance(term, LowRank))
    factors: dict[str, Tensor] = {}
    named = dict(source.parameters.model.named_modules())
    modules: dict[str, nn.Module | None] = {}
    for site, term in vector.terms.items():
        assert isinstance(site, Weight)
        assert isinstance(term, LowRank)  # both checked by the format
        if source.parameters.shapes.get(site.name) != term.shape:
            raise FORMAT.refused(
                f"{site} of shape {term.shape}",
                f"the parameters of {source.label}",
                "name the model that the vector was made for",
            )
        uses = [alias for alias, name in source.parameters.aliases.items() if name == site.name]
        for use in (site.name, *uses):
            name = use.removesuffix(".weight")
            modules[name] = named.get(name)
            factors |= _factors(name, modules[name], _filled(term, rank))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source.label,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(type(module).__name__ == "Conv1D" for module in modules.values()),
        "target_modules": sorted(modules),
        "inference_mode": True,
    }
    with AtomicFolder(path, VectorFileError) as folder:
        text, data = json.dumps(config, indent=2), save(factors, {"format": "pt"})
        write_text(folder.path / "adapter_config.json", text, VectorFileError)
        write_bytes(folder.path / "adapter_model.safetensors", data, VectorFileError)
        folder.commit()


def _factors(name: str, module: nn.Module | None, term: LowRank) -> dict[str, Tensor]:
    """Return both factors under PEFT's names: of W as it is, or of its transpose."""
    prefix = f"base_model.model.{name}.lora"
    if isinstance(module, nn.Linear):
        found = {f"{prefix}_A.weight": term.A, f"{prefix}_B.weight": term.B}
    elif type(module).__name__ == "Conv1D":
        found = {f"{prefix}_A.weight": term.B.T, f"{prefix}_B.weight": term.A.T}
    elif isinstance(module, nn.Embedding):
        found = {f"{prefix}_embedding_A": term.B.T, f"{prefix}_embedding_B": term.A.T}
    else:
        raise FORMAT.refused(
            f"{name}, a {type(module).__name__}",
            "weights of linear modules and embeddings",
            "merge it instead: steer.merge_checkpoint",
        )
    return {key: factor.detach().cpu().contiguous() for key, factor in found.items()}


def _filled(term: LowRank, rank: int) -> LowRank:
    """Return the same product with factors of a higher rank."""
    more = rank - term.rank
    pad = torch.nn.functional.pad
    return LowRank(pad(term.B, (0, more)), pad(term.A, (0, 0, 0, more))) if more else term


def _read(path: Path, *, base: str | Path) -> Vector:
    """Read an adapter as the difference that it makes to the model `base`."""
    from steer.alignment import alignment_vector

    return alignment_vector(base, path, progress=False)


FORMAT = register_format(
    Format(
        name="peft",
        what="PEFT, vLLM, mergekit: LoRA adapters, each a folder",
        write=_write,
        read=_read,
        terms="factors",
    )
)
