"""The entry point of vLLM: an engine whose `additional_config` has a `steer` part is steered."""

from typing import Any

from steer.serving._wrapping import wrap

KEY = "steer"  # of the configuration, and of a request's `extra_args`


def register() -> None:
    """Have vLLM read the `steer` part of its configuration; without one nothing else changes."""
    from vllm.engine.arg_utils import EngineArgs

    wrap(EngineArgs, "create_engine_config", _create_engine_config)


def is_configured(config: Any) -> bool:
    """Return whether an engine's configuration has a `steer` part."""
    return isinstance(config.additional_config, dict) and KEY in config.additional_config


def _create_engine_config(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    config = original(self, *args, **kwargs)
    if is_configured(config):
        from steer.serving._install import install

        install(config)
    return config
