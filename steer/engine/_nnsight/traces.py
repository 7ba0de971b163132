"""The traces. nnsight reads the bodies of these blocks from the source of this file.

A body that may run on a server names only plain values and the functions of `body`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from steer.engine._nnsight import body
from steer.engine._nnsight.body import Edits, module_at, walk, walk_steps


def prepare(remote: bool | str) -> Any:
    """Return nnsight, ready to send the functions of `body` along with a remote trace."""
    import nnsight

    if remote:
        nnsight.register(body)
    return nnsight


def run(
    model: Any,
    name: str,
    inputs: Mapping[str, Tensor],
    edits: Edits,
    layers: Sequence[int],
    spans: Sequence[slice],
    remote: bool | str,
) -> tuple[dict[int, Tensor], list[Tensor]]:
    """Return the streams at some layers, and the logits at each row's span, of one trace."""
    nnsight, wanted, columns = prepare(remote), list(layers), list(spans)
    streams: dict[int, Tensor] = {}
    logits: list[Tensor] = []
    if columns:
        with model.trace(dict(inputs), remote=remote):
            streams = nnsight.save(walk(module_at(model, name), edits, wanted))
            whole = model.output.logits.detach()
            logits = nnsight.save([whole[r, at].clone() for r, at in enumerate(columns)])
    else:
        with model.trace(dict(inputs), remote=remote) as tracer:
            streams = nnsight.save(walk(module_at(model, name), edits, wanted))
            tracer.stop()
    return streams, logits


def run_generation(
    model: Any,
    name: str,
    inputs: Mapping[str, Tensor],
    edits: Edits,
    lengths: Tensor,
    options: Mapping[str, Any],
    remote: bool | str,
) -> Any:
    """Return what `generate` returns inside a trace."""
    nnsight = prepare(remote)
    out: Any = None
    with model.generate(**options, remote=remote) as tracer:
        with tracer.invoke(dict(inputs)):
            walk_steps(tracer, module_at(model, name), edits, lengths)
        with tracer.invoke():
            out = nnsight.save(tracer.result)
    return out
