"""Where the decoder blocks, the final norm and the unembedding of a model are."""

from steer.network._architecture.architecture import Architecture
from steer.network._architecture.find import find_architecture
from steer.network._architecture.output import block_output, replace_output

__all__ = [
    "Architecture",
    "block_output",
    "find_architecture",
    "replace_output",
]
