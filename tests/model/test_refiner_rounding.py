"""What half precision changes of a refiner: of its two outputs the larger counts, whatever the labels are."""

import torch
from torch import Tensor, nn

from builders.refiner import TUMOUR, Planted, bright, refiner
from segfw.model.half_precision import measure_rounding
from segfw.planning.plan import REFINE


class TwoLogits(nn.Module):
    """The same two logits at every voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.view(1, 2, 1, 1, 1).expand(1, 2, *image.shape[2:]).clone()


def test_a_logit_that_changes_its_sign_and_not_its_rank_changes_no_class(tmp_path):
    plan = refiner(Planted(bright), labels=TUMOUR).model.plan
    whole = {"logits": torch.tensor([1e-9, 1.0])}
    rounded = {"logits": torch.tensor([0.0, 1.0])}
    turned = {"logits": torch.tensor([2.0, 1.0])}
    assert measure_rounding(tmp_path, plan, REFINE, whole, rounded, lambda _: TwoLogits()).changed_classes == 0
    assert measure_rounding(tmp_path, plan, REFINE, whole, turned, lambda _: TwoLogits()).changed_classes == 1
