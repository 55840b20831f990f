"""Tensors reach a CUDA device without the host waiting for it, with a stand-in for one of the host."""

import torch

from segfw.base.sending import sent

CUDA = torch.device("cuda")


class Host:
    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.asked: list[object] = []

    def pin_memory(self):
        self.asked.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        self.asked.append((device.type, non_blocking))
        return self


def test_what_lies_on_the_host_goes_to_a_card_by_way_of_pinned_memory():
    tensor = Host("cpu")
    sent(tensor, CUDA)
    assert tensor.asked == ["pinned", ("cuda", True)]


def test_what_lies_on_a_card_cannot_be_pinned():
    tensor = Host("cuda")
    sent(tensor, CUDA)
    assert tensor.asked == [("cuda", False)]


def test_where_there_is_no_card_nothing_is_copied():
    tensor = torch.tensor([True, False])
    assert sent(tensor, torch.device("cpu")) is tensor
