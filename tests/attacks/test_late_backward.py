"""A backward pass after the steering changed: the right gradient, or a refusal by name."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from steer import Dense, Model, Vector, Weight
from steer.errors import SteeringError
from steer.model import Steered
from tests.conformance import cases
from tests.conformance.cases import Snapshot, close, far, padded
from tests.tiny import tiny_model, tiny_tokenizer
from tests.weights import everywhere

pytestmark = pytest.mark.filterwarnings(  # torch, of a small forward without gradients
    "ignore:None of the inputs have requires_grad=True:UserWarning"
)
BATCH = padded(cases.sequences(), "right")
KINDS: Mapping[str, tuple[Callable[[Model], Vector], Any]] = MappingProxyType(
    {
        "residual": (lambda lm: cases.vector(0, 1, 2), "auto"),
        "weights": (lambda lm: everywhere(lm.hf_model), "hook"),
        "merged": (lambda lm: everywhere(lm.hf_model), "merge"),
        "merged inside a block": (
            lambda lm: Vector(
                {Weight("model.layers.1.mlp.up_proj.weight"): Dense(torch.ones(64, 32) / 8)}
            ),
            "auto",
        ),
        "both": (
            lambda lm: Vector({**everywhere(lm.hf_model).terms, **cases.vector(1).terms}),
            "hook",
        ),
    }
)


def _layers(reentrant: bool, hf: Any) -> Any:
    hf.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    return hf


def _blocks(reentrant: bool, hf: Any) -> Any:
    """Around the call of each block, so that hooks on it run again as well."""
    kind: Any = type(hf.model.layers[0])

    class Around(kind):  # type: ignore[misc]
        def __call__(self, h: Tensor, **kwargs: Any) -> Any:
            call = partial(super().__call__, **kwargs)
            return checkpoint(call, h, use_reentrant=reentrant)

    for block in hf.model.layers:
        block.__class__ = Around
    return hf


def _whole(reentrant: bool, hf: Any) -> Any:
    def call(input_ids: Tensor, **batch: Any) -> Any:
        embedded = hf.get_input_embeddings()(input_ids)
        run = partial(_with_embeddings, hf, batch)
        return SimpleNamespace(logits=checkpoint(run, embedded, use_reentrant=reentrant))

    return call


def _with_embeddings(hf: Any, batch: Any, embedded: Tensor) -> Tensor:
    return hf(inputs_embeds=embedded, **batch).logits  # type: ignore[no-any-return]


def _plain(reentrant: bool, hf: Any) -> Any:
    return hf


PLACES = MappingProxyType(
    {"nowhere": _plain, "layers": _layers, "blocks": _blocks, "whole": _whole}
)


def _left(lm: Model, handle: Steered) -> None:
    handle.remove()


def _updated(lm: Model, handle: Steered) -> None:
    handle.update(0.3)


def _nested(lm: Model, handle: Steered) -> None:
    lm.steered(cases.vector(1, seed=4), 1.0).attach()


CHANGES = MappingProxyType({"left": _left, "updated": _updated, "nested": _nested})


def gradient(
    kind: str,
    place: str,
    reentrant: bool,
    change: Callable[[Model, Steered], object] = lambda *_: None,
) -> Tensor:
    """The gradient of one weight, with something between forward and backward."""
    make, weights = KINDS[kind]
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    down: Any = lm.hf_model.get_submodule("model.layers.0.mlp.down_proj")
    lm.hf_model.train()
    call = PLACES[place](reentrant, lm.hf_model)
    handle = lm.steered(make(lm), 1.0, weights=weights).attach()
    loss = call(**BATCH, use_cache=False).logits.square().mean()
    change(lm, handle)
    try:
        loss.backward()
    finally:
        lm.unsteer()
    return down.weight.grad  # type: ignore[no-any-return]


@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
@pytest.mark.parametrize("place", ["layers", "blocks"])
@pytest.mark.parametrize("change", [None, *CHANGES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_is_right_or_refused(
    kind: str, change: str | None, place: str, reentrant: bool
) -> None:
    expected = gradient(kind, "nowhere", False)
    if change is None:
        close(gradient(kind, place, reentrant), expected)
        return
    try:
        found = gradient(kind, place, reentrant, CHANGES[change])
    except SteeringError as error:
        assert "steered differently" in str(error)  # noqa: PT017 - one of two outcomes
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017 - torch's own
    else:
        close(found, expected)


def test_refusals_are_where_the_gradient_would_be_wrong() -> None:
    """By hook without checkpoints a late backward pass is right, and no refusal."""
    for kind in ("residual", "weights", "both"):
        close(gradient(kind, "nowhere", False, _left), gradient(kind, "nowhere", False))
    close(gradient("residual", "layers", True, _left), gradient("residual", "nowhere", False))
    for kind, place in (("weights", "layers"), ("residual", "blocks"), ("merged", "nowhere")):
        for reentrant in (False, True):
            with pytest.raises(SteeringError, match="steered differently"):
                gradient(kind, place, reentrant, _left)


@pytest.mark.parametrize("kind", ["residual", "weights", "merged inside a block"])
def test_a_checkpoint_around_the_model_is_refused_or_warned_of(kind: str) -> None:
    expected = gradient(kind, "nowhere", False)
    close(gradient(kind, "whole", False), expected)
    with pytest.raises(SteeringError, match="steered differently"):
        gradient(kind, "whole", False, _left)
    with pytest.warns(UserWarning, match="use_reentrant=True"):
        gradient(kind, "whole", True)


def test_hidden_states_are_watched_as_logits_are() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    lm.hf_model.train()
    _layers(True, lm.hf_model)
    before = Snapshot(lm.hf_model)
    with lm.steered(everywhere(lm.hf_model), 1.0):
        out = lm.hf_model(**BATCH, use_cache=False, output_hidden_states=True)
    with pytest.raises(SteeringError, match="steered differently"):
        out.hidden_states[2].square().mean().backward()
    before.check(lm.hf_model)


def test_another_forward_in_between_does_no_harm() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    lm.hf_model.train()
    _layers(False, lm.hf_model)
    v = everywhere(lm.hf_model)
    with lm.steered(v, 1.0):
        loss = lm.hf_model(**BATCH, use_cache=False).logits.square().mean()
        with lm.steered(cases.vector(1), 2.0):  # left again before the backward pass
            far(lm.hf_model(**BATCH, use_cache=False).logits.square().mean(), loss)
        loss.backward()
    down: Any = lm.hf_model.get_submodule("model.layers.0.mlp.down_proj")
    close(down.weight.grad, gradient("weights", "nowhere", False))
