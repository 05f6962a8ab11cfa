"""The recurrent block under any mask."""

import pytest
import torch

from neurofm_ml.nn.recurrent import GRUBlock

MASKS = {"whole": [1, 1, 1, 1, 1, 1], "end": [1, 1, 1, 0, 0, 0], "start": [0, 0, 1, 1, 1, 1], "hole": [1, 0, 0, 1, 1, 0]}


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("name", MASKS)
def test_reads_valid_steps_alone_and_all_of_them(name, bidirectional):
    torch.manual_seed(0)
    block = GRUBlock(8, bidirectional, dropout=0.0)
    mask = torch.tensor([MASKS[name], MASKS["whole"]], dtype=torch.bool)
    x = torch.randn(2, 6, 8)
    out = block(x, mask)
    last = int(mask[0].nonzero()[-1])
    alone = block((x[:1] * mask[:1, :, None])[:, : last + 1], mask[:1, : last + 1])
    assert torch.allclose(out[0, : last + 1], alone[0], atol=1e-6)
    assert torch.allclose(block(torch.where(mask[..., None], x, 99.0), mask)[mask], out[mask], atol=1e-6)
    for t in mask[0].nonzero()[:, 0].tolist():
        moved = x.clone()
        moved[0, t] += 1
        assert (block(moved, mask)[0, t] - out[0, t]).norm() > 1e-2
