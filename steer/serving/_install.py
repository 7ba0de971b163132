"""What a configured engine gets, in the process that receives requests."""

from typing import Any

from steer.errors import CapabilityError, CompositionError, SteerError
from steer.serving._adapters import Adapters, check_lora, rank
from steer.serving._configuration import (
    Configuration,
    as_written,
    check_engine,
    check_fits,
    configured,
)
from steer.serving._folder import read_folder, residuals, weights
from steer.serving._library import Library, salt
from steer.serving._plugin import KEY
from steer.serving._setting import read_setting
from steer.serving._wrapping import wrap

_WORKER = "steer.serving._worker.WorkerCalls"
_engines: dict[str, tuple[Library, Adapters, Configuration]] = {}  # by the engine's id


def install(config: Any) -> None:
    """Check an engine's configuration, complete it, and have its requests read.

    Raises:
        ArgumentError: The `steer` part cannot be used.
        CapabilityError: The engine or a vector cannot be steered.
        VectorFileError: A vector file is damaged.
    """
    import vllm
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.v1.engine.input_processor import InputProcessor

    written = as_written(config.additional_config[KEY])
    check_engine(config, vllm.__version__, bool(written.get("untested_version")))
    parts = read_folder(str(written["vectors"]))
    directions, changes = residuals(parts), weights(parts)
    used = {name: part.vector.layers for name, part in directions.items()}
    checked = configured(written, used, config, weights=bool(changes))
    for name, part in directions.items():
        check_fits(name, part, checked)
    if changes:
        check_lora(config, rank(changes), checked.adapters)
    config.additional_config[KEY] = checked.as_json()
    config.parallel_config.worker_extension_cls = _WORKER
    held = Library(directions, changes.keys() - directions.keys())
    adapters = Adapters(changes, config.model_config.model, checked.adapters)
    _engines[config.instance_id] = held, adapters, checked
    wrap(InputProcessor, "process_inputs", _process_inputs)
    for kind in (ChatCompletionRequest, CompletionRequest):
        wrap(kind, "to_beam_search_params", _to_beam_search_params)


def library(config: Any) -> Library | None:
    """Return the vectors of an engine, or None if it is not steered."""
    found = _engines.get(config.instance_id)
    return None if found is None else found[0]


def _process_inputs(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Check a request's setting before it runs."""
    request = original(self, *args, **kwargs)
    held = _engines.get(self.vllm_config.instance_id)
    if held is not None and request.sampling_params is not None:
        with _as_client_error():
            _resolve(request, *held)
    return request


def _resolve(request: Any, held: Library, adapters: Adapters, own: Configuration) -> None:
    """Replace a request's document by slots and positions, salt its cache key, name its adapter."""
    extra = request.sampling_params.extra_args or {}
    if extra.get(KEY) is None:
        return
    setting = read_setting(extra[KEY], own.max_coefficient)
    if request.resumable and setting.coefficients:
        raise CapabilityError(
            "a session whose prompt grows cannot be steered",
            found="a resumable request",
            expected="a prompt that is complete",
            do="send the whole prompt",
        )
    ids = request.prompt_token_ids
    sent = len(request.prompt_embeds if ids is None else ids)
    prompt = sent if setting.prompt_length is None else setting.prompt_length
    if prompt > sent:
        raise CompositionError(
            "the prompt is longer than the text",
            found=f"prompt_length {prompt} of {sent} tokens",
            expected=f"at most {sent}",
            do="count the tokens that are sent, or leave prompt_length out",
        )
    entries = held.entries(setting, prompt)
    request.sampling_params.extra_args = {**extra, KEY: [list(entry) for entry in entries]}
    if entries:
        request.cache_salt = salt(entries, request.cache_salt)
    if adapters.needed(setting.coefficients) and request.lora_request is not None:
        raise CapabilityError(
            "a request has one adapter",
            found=f"the adapter {request.lora_request.lora_name!r} and weight vectors",
            expected="one of them",
            do="name the base model, or leave the weight vectors out",
        )
    adapter = adapters.of(setting.coefficients, setting.scope)
    if adapter is not None:
        from vllm.lora.request import LoRARequest

        request.lora_request = LoRARequest(*adapter)


def _to_beam_search_params(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse beam search for a steered request: vLLM drops its arguments on the way."""
    if KEY in (self.vllm_xargs or {}):
        with _as_client_error():
            raise CapabilityError(
                "beam search cannot be steered in vLLM",
                found="use_beam_search and a setting",
                expected="one of them",
                do="leave use_beam_search out",
            )
    return original(self, *args, **kwargs)


class _as_client_error:  # noqa: N801  # a context, used like contextlib's
    """Turn an error of this library into vLLM's, which a client sees as status 400."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from vllm.exceptions import VLLMValidationError

        if isinstance(error, SteerError):
            raise VLLMValidationError(str(error), parameter=KEY) from error
