"""A Hugging Face model as steer reads it: blocks, parameters, tokens, fingerprints."""

from steer.network._architecture.architecture import Architecture
from steer.network._architecture.find import find_architecture
from steer.network._architecture.output import block_output, replace_output
from steer.network._chat import Chat, PromptLike, as_chat, as_prompt, as_prompts, render
from steer.network._checkpoint import Checkpoint
from steer.network._text import Exchange, encode_exchange, encode_in_user_slot, encode_prompt
from steer.network._thinking import Continuation

__all__ = [
    "Architecture",
    "Chat",
    "Checkpoint",
    "Continuation",
    "Exchange",
    "PromptLike",
    "as_chat",
    "as_prompt",
    "as_prompts",
    "block_output",
    "encode_exchange",
    "encode_in_user_slot",
    "encode_prompt",
    "find_architecture",
    "render",
    "replace_output",
]
