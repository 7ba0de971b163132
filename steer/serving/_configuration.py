"""The `steer` part of vLLM's `additional_config`, and what of vLLM it goes with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from steer._check import as_layers, integer, number
from steer.algebra import Part
from steer.errors import ArgumentError, CapabilityError
from steer.serving._folder import rows

VERSIONS = ("0.32",)  # of vLLM that the tests run with
_KEYS = ("vectors", "capacity", "layers", "max_coefficient", "adapters", "untested_version")
_ADAPTERS = 8
_SPARE = 4  # slots for vectors that are loaded while the server runs


@dataclass(frozen=True)
class Configuration:
    """What a server is started with.

    Args:
        vectors: Folder of vector files, one for each domain.
        capacity: Most vectors at a time.
        layers: Layers that vectors may steer.
        width: d_model.
        max_coefficient: Largest size of a coefficient of a request.
        adapters: Most distinct settings of weight vectors.
        dtype: Of the model.
    """

    vectors: str
    capacity: int
    layers: tuple[int, ...]
    width: int
    max_coefficient: float
    adapters: int
    dtype: str

    @classmethod
    def of(cls, config: Any) -> "Configuration":
        """Return the checked configuration of an engine."""
        given = config.additional_config["steer"]
        return cls(**{**given, "layers": tuple(given["layers"])})

    def as_json(self) -> dict[str, Any]:
        """Return the values that travel to the workers and into the key of the compile cache."""
        return {**asdict(self), "layers": list(self.layers)}


def configured(
    given: object, used: Mapping[str, tuple[int, ...]], config: Any, *, weights: bool = False
) -> Configuration:
    """Return the configuration of what a user wrote, with defaults for what is left out.

    Args:
        given: The `steer` part as it was written.
        used: The layers of each vector in the folder that has some.
        config: vLLM's configuration.
        weights: Whether the folder also has changes of weights.

    Raises:
        ArgumentError: A key or a value cannot be used.
    """
    settings = as_written(given)
    most = max(len(used), 1)
    if not used and not weights and not settings.get("layers"):
        raise _bad("no vector file in the folder, and no `layers`", "one of both")
    capacity = integer("capacity", settings.get("capacity", most + _SPARE), least=most)
    layers = settings.get("layers") or sorted({layer for own in used.values() for layer in own})
    count = config.model_config.get_total_num_hidden_layers()
    for name, own in {**used, "`layers`": as_layers(layers)}.items():
        if own and not 0 <= min(own) <= max(own) < count:
            raise _bad(f"layers {min(own)} to {max(own)} of {name}", f"layers 0 to {count - 1}")
    for name, own in used.items():
        if set(own) - set(layers):
            raise _bad(f"{name} at layers {list(own)}", f"vectors within the layers {list(layers)}")
    return Configuration(
        vectors=str(settings["vectors"]),
        capacity=capacity,
        layers=as_layers(layers),
        width=config.model_config.get_hidden_size(),
        max_coefficient=number("max_coefficient", settings.get("max_coefficient", 100.0), least=0),
        adapters=integer("adapters", settings.get("adapters", _ADAPTERS), least=1),
        dtype=str(config.model_config.dtype).removeprefix("torch."),
    )


def check_fits(name: str, part: Part, own: Configuration) -> None:
    """Refuse a vector of another width than the model's, or one that could overflow its dtype.

    An infinite sum would not stay with its request: 0 · ∞ is not a number for the others.
    """
    largest = max(float(row.abs().max()) for row in rows(part.vector).values())
    bound = torch.finfo(getattr(torch, own.dtype)).max / own.capacity / max(own.max_coefficient, 1)
    if not largest <= bound:
        raise ArgumentError(
            f"the vector {name!r} could overflow {own.dtype}",
            found=f"a value of {largest:.3g}",
            expected=f"at most {bound:.3g}, for {own.capacity} vectors and coefficients up to "
            f"{own.max_coefficient:g}",
            do="scale the vector down, or start the server with a smaller `max_coefficient`",
        )
    if part.vector.d_model != own.width:
        raise ArgumentError(
            f"the vector {name!r} does not fit this model",
            found=f"width {part.vector.d_model}",
            expected=f"width {own.width}",
            do="serve the model that the vectors were made for",
        )


def as_written(given: object) -> Mapping[str, Any]:
    """Return the `steer` part if its keys are known and it names a folder."""
    if not isinstance(given, Mapping) or not isinstance(given.get("vectors"), str):
        raise _bad(repr(given)[:200], '{"vectors": "FOLDER"}')
    if unknown := sorted(map(str, given.keys() - set(_KEYS))):
        raise _bad(", ".join(unknown), ", ".join(_KEYS))
    return given


def check_engine(config: Any, version: str, untested: bool) -> None:
    """Refuse a version of vLLM, or a way to run, that steering was not shown to be right with.

    Raises:
        CapabilityError: The engine cannot be steered.
    """
    if not version.startswith(VERSIONS) and not untested:
        raise _incapable(
            f"vLLM {version}",
            f"vLLM {', '.join(VERSIONS)}",
            'pass "untested_version": true to try this one',
        )
    parallel = config.parallel_config
    refused = {
        "a model that does not generate text": config.model_config.runner_type != "generate",
        "an encoder and a decoder": config.model_config.is_encoder_decoder,
        "speculative decoding": config.speculative_config is not None,
        "a KV connector": config.kv_transfer_config is not None,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "data parallelism": parallel.data_parallel_size > 1,
        "context parallelism": parallel.prefill_context_parallel_size > 1
        or parallel.decode_context_parallel_size > 1,
        "micro-batches": parallel.enable_dbo or parallel.ubatch_size > 1,
        "several API servers": parallel._api_process_count > 1,
        "sleep mode": config.model_config.enable_sleep_mode,
        "a worker extension": bool(parallel.worker_extension_cls),
    }
    if found := [name for name, is_so in refused.items() if is_so]:
        raise _incapable(", ".join(found), "none of these", "start the server without")


def _incapable(found: str, expected: str, do: str) -> CapabilityError:
    what = "this vLLM engine cannot be steered"
    return CapabilityError(what, found=found, expected=expected, do=do)


def _bad(found: str, expected: str) -> ArgumentError:
    return ArgumentError(
        "the `steer` part of additional_config cannot be used",
        found=found,
        expected=expected,
        do="see the page 'Serving'",
    )
