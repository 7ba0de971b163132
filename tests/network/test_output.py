from collections import namedtuple

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from steer.errors import ArchitectureError
from steer.network import block_output, replace_output

H, NEW = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
Named = namedtuple("Named", ["hidden", "cache"])


@pytest.mark.parametrize("out", [H, (H,), (H, None, "cache"), [H, 1], Named(H, None)])
def test_hidden_state_is_found_and_replaced(out: object) -> None:
    assert block_output(out) is H
    replaced = replace_output(out, NEW)
    assert type(replaced) is type(out)
    assert block_output(replaced) is NEW
    assert block_output(out) is H
    if isinstance(out, tuple | list):
        assert list(replaced[1:]) == list(out[1:])


def test_a_batch_is_never_taken_apart() -> None:
    assert block_output(H).shape == (2, 3, 4)


@pytest.mark.parametrize(
    "out", [None, (), [], ("cache", H), {"hidden": H}, BaseModelOutput(last_hidden_state=H)]
)
def test_other_outputs_are_refused(out: object) -> None:
    with pytest.raises(ArchitectureError, match=type(out).__name__):
        block_output(out)
    with pytest.raises(ArchitectureError, match=type(out).__name__):
        replace_output(out, NEW)
