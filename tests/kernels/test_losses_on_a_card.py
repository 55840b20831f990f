"""Kernels of the losses on more logits than 32 bits count, for which a processor has no patience."""

from __future__ import annotations

import pytest
import torch

from builders.card import CARD, NEEDS_A_CARD
from segfw.base.records import GIGABYTE
from segfw.networks.fused_losses import fused_sums
from segfw.networks.losses import LABELS, Target

pytest.importorskip("triton")
pytestmark = NEEDS_A_CARD

OUTPUTS = 8
VOXELS = 2**27 + 64  # in each of two samples: 2^31 + 1024 logits
LAST = 32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("target", [LABELS, Target(regions=tuple((index,) for index in range(1, OUTPUTS + 1)))])
def test_the_last_of_two_thousand_million_logits_have_their_gradient(target, layout):
    """The entropy's, which is the probability, and 1 less where the voxel lies inside."""
    if torch.cuda.mem_get_info(CARD)[0] < 24 * GIGABYTE:
        pytest.skip("less than 24 GB of the card are free, so no kernel was run on so many logits")
    sums = fused_sums(CARD, target)
    assert sums is not None
    shape = (2, OUTPUTS, 1, 1, VOXELS)
    logits = torch.empty(shape, dtype=torch.bfloat16, device=CARD, memory_format=layout).normal_().requires_grad_()
    classes = torch.ones((2, 1, 1, VOXELS), dtype=torch.long, device=CARD)
    entropy, counted, *_ = sums(logits, classes, target, 1.0, None)
    entropy.backward()
    found = logits.grad[1, :, 0, 0, -LAST:].float()
    last = logits.detach()[1, :, 0, 0, -LAST:].float()
    wanted = last.sigmoid() if target.regions else last.softmax(0)
    wanted[0 if target.regions else 1] -= 1
    torch.testing.assert_close(found, wanted, rtol=2**-7, atol=2**-9)
    assert counted.item() == pytest.approx(2 * VOXELS * (OUTPUTS if target.regions else 1), rel=1e-6)
    assert entropy.isfinite()
