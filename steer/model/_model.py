"""A model that can be steered: an engine, a tokenizer and an architecture."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack, overload

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_layers, as_list, integer
from steer._units import in_units
from steer.algebra import CoefficientsLike, DomainGate, ModelInfo, Scope, as_composition
from steer.algebra._coefficients import given
from steer.algebra._composition import Steerable
from steer.engine import Batch, Engine, HooksEngine, unsteered
from steer.engine._base import WeightMode
from steer.engine._branches.scores import token_logprobs
from steer.engine._patches import unwrapped
from steer.errors import ArgumentError, RecordingError, TextError
from steer.model._batch import check_lengths, exchange_batch, in_order, prompt_batch
from steer.model._generation import answers, check_one_answer
from steer.model._loading.load import check_loaded, load_model, load_tokenizer
from steer.model._loading.location import Location, located
from steer.model._steered import Steered, warn_of_tuning, with_own
from steer.network import Architecture, Chat, PromptLike, find_architecture
from steer.network._architecture.find import PartNames
from steer.network._compatibility import check_vector_fits_model
from steer.network._fingerprint import Marks, model_info, name_of, tokenizer_marks
from steer.show import Shown

if TYPE_CHECKING:
    from steer.show import Card

_T = TypeVar("_T")
_ARGUMENTS = ("gate", "kl", "operator", "relative", "scope", "strict", "weights")  # of `steered`
_TOKENS = 4096  # tokens of one forward when scoring


class Model(Shown):
    """A Hugging Face causal language model that can be steered; it is neither copied nor changed.

    Args:
        hf_model: An `AutoModelForCausalLM`, or what wraps one (PEFT).
        tokenizer: Its tokenizer. Without one, only calls of `hf_model` itself can be steered.
        chat_template_kwargs: JSON values that every rendering passes to the chat template
            (`enable_thinking`, `tools`, `documents`, …). They are part of its fingerprint.
        engine: Returns the engine that runs the model, given its parts.
        verify: Whether two short forwards check these parts, and that the model is causal. If not,
            only names and sizes are checked.
        **parts: Dotted names of parts that are not found automatically: `blocks`, `final_norm`,
            `unembedding`, `embedding`.

    Raises:
        ArchitectureError: It is not a model, or its parts are not found or do not give its logits.
        TextError: The tokenizer is not one, the chat template does not read an argument, or there
            is no template.
    """

    _own: ClassVar = ("chat_template_kwargs", *PartNames.__annotations__)  # taken by `__init__`

    def __init__(
        self,
        hf_model: Any,
        tokenizer: Any = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        engine: Callable[[Architecture], Engine] = HooksEngine,
        verify: bool = True,
        **parts: Unpack[PartNames],
    ) -> None:
        check_loaded(hf_model, tokenizer)
        self.hf_model = hf_model
        self._tokenizer = tokenizer
        self._arguments: Mapping[str, Any] = chat_template_kwargs or {}
        if chat_template_kwargs:
            self._arguments = self.chat.arguments
        self.architecture: Architecture = find_architecture(hf_model, verify=verify, **parts)
        self.engine = engine(self.architecture)
        self._info: tuple[Marks | None, ModelInfo] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        tokenizer: Any = None,
        device: str | int | torch.device | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model and its tokenizer.

        Args:
            name: Hub id, folder of a model or of a LoRA adapter, or a GGUF file.
            tokenizer: A tokenizer, if it is not the model's own.
            device: Where to load it: `"cpu"`, `"cuda:1"`, `"auto"`, …, as `device_map` takes it.
            **kwargs: `chat_template_kwargs` and names of parts, see `Model`; the rest is passed on
                to `AutoModelForCausalLM.from_pretrained` (`dtype`, `device_map`, `revision`, …).
                Options that locate files (`gguf_file`, `revision`, `token`, `cache_dir`,
                `subfolder`, `local_files_only`, …) apply to the tokenizer too.

        Returns:
            The model, in evaluation mode.

        Raises:
            ArchitectureError: See `Model`.
            CapabilityError: An option or device does not exist.
            ArgumentError: A precision does not exist.
            CheckpointError: The model does not exist, or it cannot be loaded.
            MissingExtraError: A GGUF file, an adapter or a device map needs a package.
            TextError: Its tokenizer cannot be read, or see `Model`.
        """
        own = {option: kwargs.pop(option) for option in cls._own if option in kwargs}
        location = located(name, kwargs, device)
        return cls._at(location, load_tokenizer(location) if tokenizer is None else tokenizer, own)

    @classmethod
    def _at(cls, location: Location, tokenizer: Any, own: Mapping[str, Any]) -> Self:
        """Load the model that is at a location."""
        return cls(load_model(location), tokenizer, **own)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            TextError: The model has none.
        """
        if self._tokenizer is None:
            raise TextError(
                "this model has no tokenizer",
                found="None",
                expected="a Hugging Face tokenizer",
                do="pass it: steer.Model(hf_model, tokenizer)",
            )
        return self._tokenizer

    @property
    def chat(self) -> Chat:
        """The tokenizer with the arguments of its chat template, which renders prompts.

        Raises:
            TextError: The model has no tokenizer, or its template was changed to one that does not
                read the arguments.
        """
        return Chat(self.tokenizer, self._arguments)

    @property
    def chat_template_kwargs(self) -> dict[str, Any]:
        """A copy of the arguments that every rendering passes to the chat template."""
        return copy.deepcopy(dict(self._arguments))

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return self.architecture.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.architecture.d_model

    @property
    def info(self) -> ModelInfo:
        """The identity of the model and its tokenizer, as they are now."""
        chat = None if self._tokenizer is None else self.chat
        marks = None if chat is None else tokenizer_marks(chat)
        if self._info is None or self._info[0] != marks:
            self._info = marks, model_info(self.hf_model, chat, self.architecture)
        return self._info[1]

    # -- steering --------------------------------------------------------------------------------

    def steered(
        self,
        what: Steerable,
        coefficients: CoefficientsLike | None = None,
        /,
        *,
        relative: float | None = None,
        kl: float | None = None,
        gate: DomainGate | None = None,
        operator: str | None = None,
        scope: Scope | str | None = None,
        weights: WeightMode = "auto",
        strict: bool = True,
        **by_domain: float,
    ) -> Steered:
        """Return a context in which this model is steered, including direct calls of `hf_model`.

        `with lm.steered(knobs, medical=0.8, legal=-0.3): …`, or by hand:
        `handle = lm.steered(vector, 0.8).attach(); …; handle.remove()`.

        Args:
            what: A vector, vectors by domain, a composition, or what `select` returned.
            coefficients: A number, one per domain, or one row per prompt of the next call;
                dimensionless. By default, a composition and a selection keep their own, and a
                vector has 1, with a warning if it was tuned to another coefficient.
            relative: Instead of coefficients: how far each vector displaces the residual stream,
                as a share of the median norm of its tokens; 0.15 to 0.4 often shows in the text.
            kl: Instead of coefficients: KL(steered‖unsteered) on neutral text, nats per token.
            gate: A domain gate, instead of the composition's own. None keeps that one;
                `knobs.gated(None)` removes it. A gate that is stored with a vector acts only if
                passed: `gate=vector.gate`.
            operator: Operator for every domain, instead of the composition's own.
            scope: Tokens to act on, for every domain, instead of the composition's own.
            weights: How weight sites are steered. `hook`: rows, scopes and gates apply, and no
                weight changes. `merge`: merged into the weights while the context lasts, one
                setting for everything. `auto` merges only what a hook cannot do exactly.
            strict: Whether a vector made for another configuration, tokenizer or chat template
                is an error, or only a warning.
            **by_domain: Coefficients by domain.

        Returns:
            A context manager that is also a handle; it acts once entered or attached.

        Raises:
            CompositionError: Domains, coefficients, operator or gate do not go together, or a
                strength is given twice.
            FitError: A vector does not fit this model.
            SelectionError: The KL is not reached.
        """
        knobs = as_composition(what)
        value = given(coefficients, by_domain, knobs.domains, _ARGUMENTS)
        if value is None and relative is None and kl is None:
            warn_of_tuning(what)
        composition = with_own(knobs, value, operator, scope, gate)
        model = unwrapped(self.architecture.model)
        check_vector_fits_model(composition, self.info, model, strict=strict)
        composition = in_units(self, composition, value is not None, relative=relative, kl=kl)
        chat = None if self._tokenizer is None else self.chat
        return Steered(self.engine, composition, weights, chat)

    @property
    def steering(self) -> tuple[Steered, ...]:
        """Handles of all active steerings, in the order of entry, including lost ones."""
        return tuple(
            Steered(self.engine, found.composition, found.weights, attachment=found)
            for found in self.engine.attachments
        )

    def unsteer(self) -> None:
        """Remove every active steering; the model computes what it computed before, bit for bit.

        Open contexts end when they are left, as usual.

        Raises:
            MergeError: Merged weights could not be restored; everything else was removed.
        """
        with ExitStack() as leaving:
            for handle in self.steering:
                leaving.callback(handle.remove)

    # -- text ------------------------------------------------------------------------------------

    @overload
    def generate(self, prompts: str, **options: Any) -> str: ...
    @overload
    def generate(self, prompts: Sequence[PromptLike], **options: Any) -> list[str]: ...
    def generate(
        self, prompts: str | Sequence[PromptLike], *, batch_size: int | None = None, **options: Any
    ) -> str | list[str]:
        """Generate an answer to each prompt; greedy unless `do_sample=True` is given.

        Args:
            prompts: A prompt, or several: texts or sequences of messages, each a `Message`
                or a mapping with `role` and `content`. They go through the chat template; a last
                message of the assistant is continued.
            batch_size: Prompts run at once, all by default; coefficient rows stay with theirs. A
                model in which a batch changes its rows, as left padding does in some, runs them
                one by one and warns once.
            **options: As for Hugging Face's `generate`. Without a `generation_config` of your own,
                `max_new_tokens` is 64 where neither it nor `max_length` is given. `stop_strings`
                needs no tokenizer; an answer ends with the token that completes one of them.

        Returns:
            The answers, without special tokens and without what they continue; a string for a
            string. With `num_return_sequences`, that many in a row for each prompt of a list.

        Raises:
            TextError: A prompt cannot be rendered, several answers to a string are asked for,
                there is no such option, or the model has no positions for a prompt and the new
                tokens.
            CapabilityError: The model is in training mode, or it must run prompts one by one while
                several rows for a prompt, or a stream of several prompts, are asked for.
        """
        if isinstance(prompts, str):
            check_one_answer(options, self.hf_model.generation_config)
            return self.generate([prompts], batch_size=batch_size, **options)[0]
        prompts = as_list("prompts", prompts, do="pass a text, or a list: [[message, …]]")
        if batch_size is not None:
            integer("batch_size", batch_size, least=1)
        return [*answers(self, prompts, batch_size, options)] if prompts else []

    def logprobs(
        self, prompts: Sequence[PromptLike], responses: Sequence[str]
    ) -> list[Float[Tensor, " pos"]]:
        """Return the log-probability of each given response token, in nats.

        Args:
            prompts: One prompt per response.
            responses: The responses, scored as the assistant's turn.

        Returns:
            For each response, one value per token.

        Raises:
            TextError: The numbers differ, a response has no token, or a text is too long.
            ArgumentError: Prompts or responses are one text, not a sequence.
        """
        batch = self._exchanges(prompts, responses)

        def scored(piece: Batch) -> list[Tensor]:
            rows = zip(self.engine.forward(piece).logits, piece.responses(), strict=True)
            return [token_logprobs(logits, tokens) for logits, tokens in rows]

        return _in_pieces(batch, scored)

    def logits(
        self, prompts: Sequence[PromptLike], responses: Sequence[str]
    ) -> list[Float[Tensor, "pos vocab"]]:
        """Return the logits that predict each response token.

        Args:
            prompts: One prompt per response.
            responses: The responses.

        Returns:
            For each response `[pos vocab]`.

        Raises:
            TextError: The numbers differ, a response has no token, or a text is too long.
            ArgumentError: Prompts or responses are one text, not a sequence.
        """
        batch = self._exchanges(prompts, responses)
        return _in_pieces(batch, lambda piece: self.engine.forward(piece).logits)

    def activations(
        self,
        prompts: Sequence[PromptLike],
        responses: Sequence[str] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> list[Float[Tensor, "layer pos d_model"]]:
        """Return the residual stream of whole texts, token by token, steering included.

        This keeps every token; to extract vectors use `steer.record`, which keeps none.

        Args:
            prompts: Prompts, through the chat template.
            responses: Responses to them, if wanted.
            layers: Layers wanted, all by default; -1 is the embedding output.

        Returns:
            For each text `[layer pos d_model]`, in residual units.

        Raises:
            TextError: The numbers differ.
            RecordingError: A layer does not exist.
            ArgumentError: Prompts, responses or layers are one value, not a sequence, or a layer is
                not an integer.
        """
        prompts = as_list("prompts", prompts)
        wanted = range(self.n_layers) if layers is None else self._checked_layers(layers)
        if responses is None:
            batch = prompt_batch(self.chat, prompts)
            check_lengths(self.architecture, batch, prompts)
        else:
            batch = self._exchanges(prompts, responses)

        def read(piece: Batch) -> Sequence[Tensor]:
            return self.engine.forward(piece, layers=wanted, logits="none").residual

        return _in_pieces(batch, read)

    def _exchanges(self, prompts: Sequence[PromptLike], responses: Sequence[str]) -> Batch:
        prompts, responses = as_list("prompts", prompts), as_list("responses", responses)
        batch = exchange_batch(self.chat, prompts, responses)
        check_lengths(self.architecture, batch, prompts, stacklevel=4)
        return batch

    def _checked_layers(self, layers: Sequence[int]) -> tuple[int, ...]:
        found = as_layers(layers)
        if not found or not all(-1 <= layer < self.n_layers for layer in found):
            raise RecordingError(
                "there is no such layer",
                found=f"layers {list(found)}",
                expected=f"layers from -1 (the embedding) to {self.n_layers - 1}",
                do="count the blocks from 0; layer l is the output of block l",
            )
        return found

    def _card(self) -> "Card":
        from steer.model._card import model_card

        return model_card(self, None if self._info is None else self._info[1])

    def __repr__(self) -> str:
        name, size = name_of(self.architecture.model), f"{self.n_layers} layers × {self.d_model}"
        return f"{type(self).__name__}({name!r}, {size}, engine {self.engine.name})"


def _in_pieces(batch: Batch, read: Callable[[Batch], Sequence[_T]]) -> list[_T]:
    """Return the values read from each row of a batch that runs in pieces."""
    return in_order([(piece, read(piece)) for piece in batch.pieces(_TOKENS)])


def check_model(model: object, doing: str = "") -> None:
    """Refuse an object that is not a `Model`, for functions that take one first.

    Args:
        model: What was given.
        doing: An operation on the unsteered model, which a steered one is refused for.

    Raises:
        ArgumentError: It is something else.
        SteeringError: It is being steered.
    """
    if not isinstance(model, Model):
        raise ArgumentError(
            "the first argument is no model",
            found=f"{type(model).__module__}.{type(model).__name__}",
            expected="a steer.Model, and after it what it works on",
            do="wrap it: steer.Model(hf_model, tokenizer), or exchange the arguments",
        )
    if doing:
        unsteered(model.engine, doing)
