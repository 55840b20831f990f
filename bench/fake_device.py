"""A device that computes shapes only and counts what is asked of it: launches, waits, and bytes to and from the host.

PyTorch's meta device under FakeTensorMode: operations that mix it with the host raise, and so does whoever asks it for
a value (``float``, ``if tensor``, indexing by a mask), for which a GPU would have to be waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segfw.grid.resample import axis_matrix
from segfw.inference.tiles import blending_weights

DEVICE = torch.device("meta")


class Asked(TorchDispatchMode):
    """What was asked of the device: ``launches`` by operation, views left out; bytes that came in and went out."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.types: set[torch.dtype] = set()  # of tensors that operations made there

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        used = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        is_there = [each.device.type == DEVICE.type for each in made]
        was_there = [each.device.type == DEVICE.type for each in used]
        if any(is_there) and used and not any(was_there):
            self.bytes_in += sum(each.nbytes for each in made)
        elif any(was_there) and made and not any(is_there):
            self.bytes_out += sum(each.nbytes for each in made)
        elif "copy_" in func.name() and len(set(was_there)) == 2:  # into a tensor of the other side
            self.bytes_in += used[0].nbytes if was_there[0] else 0
            self.bytes_out += used[0].nbytes if not was_there[0] else 0
        if any(is_there) and not func.is_view:
            self.launches[func.name()] += 1
        self.types |= {each.dtype for each in made if each.device.type == DEVICE.type}
        return result

    @property
    def launch_count(self) -> int:
        """Launches in all."""
        return sum(self.launches.values())


@contextmanager
def fake_device() -> Iterator[None]:
    """Tensors made in the block have no values, and none of them is kept for later by what keeps tensors."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        for kept in (axis_matrix, blending_weights):
            kept.cache_clear()


def moved(network: nn.Module) -> nn.Module:
    """The network with its weights on the device; to be called in ``fake_device``."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            strided = torch.empty_strided(parameter.shape, parameter.stride(), dtype=parameter.dtype, device=DEVICE)
            setattr(module, name, nn.Parameter(strided))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty_like(buffer, device=DEVICE))
    return network
