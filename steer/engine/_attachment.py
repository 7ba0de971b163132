"""A composition at work in a model until it is removed: by hooks, and merged where need be."""

from contextlib import ExitStack
from typing import Any

from steer.algebra import Composition, Weight
from steer.engine._base import Way
from steer.engine._injector import Injector
from steer.engine._markers import markers_of
from steer.engine._outliving import outliving
from steer.engine._steering import Steering
from steer.engine._weights.merging import Merging
from steer.engine._weights.plan import Plan, plan
from steer.network import Architecture


class HookAttachment:
    """A composition injected by hooks, or merged where hooks are not exact."""

    @outliving()
    def __init__(
        self,
        injector: Injector,
        architecture: Architecture,
        composition: Composition,
        weights: Way,
        tokenizer: Any = None,
    ) -> None:
        self.weights = weights
        self._injector = injector
        markers = markers_of(composition, tokenizer)
        found = Plan()
        with ExitStack() as undo:
            undo.callback(self._forget)
            undo.callback(injector.settle)
            if any(isinstance(site, Weight) for site in composition.sites):
                with injector.aside():
                    found = plan(composition, architecture, weights)
            merging = Merging(architecture.model, found.merged) if found.merged else None
            self._steering = Steering(composition, found.units, injector, markers, merging)
            undo.callback(injector.leave, self._steering)
            injector.enter(self._steering)
            if merging is not None:
                undo.callback(merging.leave)
                merging.enter(composition)
            injector.attached.append(self)
            undo.pop_all()

    @property
    def composition(self) -> Composition:
        """What is injected, with its coefficients of this moment."""
        return self._steering.composition

    @property
    def active(self) -> bool:
        """Whether it has not been removed."""
        return self in self._injector.attached

    @outliving()
    def update(self, composition: Composition) -> None:
        """Take other coefficients of the same vectors; if that fails, all is as before."""
        self._steering.check(composition)
        steering, before = self._steering, self.composition
        with ExitStack() as undo:
            if steering.merging is not None:
                undo.callback(steering.merging.update, before)
                steering.merging.update(composition)
            undo.callback(steering.update, before)
            steering.update(composition)
            undo.pop_all()

    @outliving()
    def remove(self) -> None:
        """Stop injecting; doing so twice does nothing."""
        with ExitStack() as leaving:  # all of it, also if a part of it fails
            leaving.callback(self._forget)
            leaving.callback(self._injector.settle)
            if self._steering.merging is not None:
                leaving.callback(self._steering.merging.leave)
            leaving.callback(self._injector.leave, self._steering)

    def _forget(self) -> None:
        if self.active:
            self._injector.attached.remove(self)
