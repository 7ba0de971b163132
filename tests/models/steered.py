"""What a verified family owes when it is steered."""

import torch

import steer
from steer.engine import Batch

LONG, SHORT = tuple(range(50, 59)), tuple(range(70, 75))


def check_steered(lm: steer.Model) -> None:
    """See that one vector adds what it holds, and that a shorter row beside another is itself.

    Args:
        lm: A tiny model.
    """
    generator = torch.Generator().manual_seed(1)
    vector = steer.Vector.of({1: torch.randn(lm.d_model, generator=generator)})
    both, alone = Batch((LONG, SHORT), (len(LONG), len(SHORT))), Batch((SHORT,), (len(SHORT),))
    before = lm.engine.forward(both, layers=[1], logits="all")
    with lm.steered(vector, 1.0):
        after = lm.engine.forward(both, layers=[1], logits="all")
        single = lm.engine.forward(alone, layers=[1], logits="all")
        with torch.no_grad():
            own = lm.hf_model(input_ids=torch.tensor([SHORT]), use_cache=False).logits[0]
    added = after.residual[0][0] - before.residual[0][0]
    size = float(after.residual[0][0].abs().max())
    torch.testing.assert_close(
        added, vector.direction(1).expand_as(added), rtol=0, atol=1e-6 * size
    )
    scale = float(own.abs().max())
    for found in (after.logits[1], single.logits[0]):
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(after.logits[0], before.logits[0], rtol=0, atol=1e-3 * scale)
