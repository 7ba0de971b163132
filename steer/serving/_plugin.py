"""The entry point of vLLM: an engine whose `additional_config` has a `steer` part is steered."""

from functools import wraps
from typing import Any


def register() -> None:
    """Have vLLM read the `steer` part of its configuration; without one nothing is changed."""
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs.create_engine_config
    if hasattr(original, "__wrapped__"):  # vLLM may load a plugin more than once
        return

    @wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = original(self, *args, **kwargs)
        if isinstance(config.additional_config, dict) and "steer" in config.additional_config:
            from steer.serving._install import install

            install(config)
        return config

    EngineArgs.create_engine_config = create_engine_config
