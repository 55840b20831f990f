"""What a training step takes, from the network itself: a step is run without memory or arithmetic, and counted."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from segfw.base.device import (
    autocast,
    memory_share,
    numbered,
    pick_precision,
    release_workspace,
    tuned_convolutions,
)
from segfw.base.device_timer import DeviceTimer
from segfw.base.records import GIGABYTE, Record
from segfw.base.resources import ran_out_of_memory
from segfw.images.geometry import Shape, as_shape
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import LABELS, Target, deep_supervision_loss
from segfw.networks.spec import SWIN_UNETR, NetworkSpec

BYTES_PER_WEIGHT = 4 + 4 + 4 + 2  # float32 weight, gradient and momentum, and the 16-bit copy that autocast keeps
# Of the deepest feature map in the counted step: so large that activations outweigh the weights' gradients, as in real
# patches, and the peak comes where backward begins. It costs nothing, since nothing is computed.
PROBE_EDGE = 16
# Swin UNETR pads its tokens to whole windows: at 128 voxels an edge by a middling share of what patches of 64 to 160
# take, from which these differ by up to a ninth.
PROBE_EDGES = {SWIN_UNETR: 4}
MEASURED_STEPS = 5  # of which the first is not timed
# What a GPU holds beside tensors: the driver's context and libraries, then a share for the workspace of the
# convolution algorithms and for memory that the allocator cannot use because it is cut into pieces.
CONTEXT_GB = 0.5
WORKSPACE_SHARE = 0.1


class StepCost(Record):
    """What one training step takes as a function of its size: everything in a U-Net grows with the patch's voxels."""

    fixed_bytes: int
    bytes_per_voxel: float
    flops_per_voxel: float

    def peak_bytes(self, patch_size: Shape, batch_size: int) -> float:
        """Most bytes that tensors take at any time of the step."""
        return self.fixed_bytes + self.bytes_per_voxel * prod(patch_size) * batch_size

    def flops(self, patch_size: Shape, batch_size: int) -> float:
        """Floating-point operations of forward and backward."""
        return self.flops_per_voxel * prod(patch_size) * batch_size

    def largest_batch(self, patch_size: Shape, budget_bytes: float) -> int:
        """Patches per step that fit into ``budget_bytes``; 0 if not even one does."""
        return max(0, int((budget_bytes - self.fixed_bytes) // (self.bytes_per_voxel * prod(patch_size))))


def usable_bytes(memory_gb: float) -> float:
    """Bytes for tensors on a GPU of ``memory_gb``."""
    return max(0.0, (memory_gb - CONTEXT_GB) * (1 - WORKSPACE_SHARE)) * GIGABYTE


def needed_gb(tensors_gb: float) -> float:
    """Memory of the smallest GPU on which tensors of ``tensors_gb`` fit: the inverse of ``usable_bytes``."""
    return tensors_gb / (1 - WORKSPACE_SHARE) + CONTEXT_GB


def load_counter() -> None:
    """Imports what counting needs; called in a thread while files are read, since it takes over a second."""
    import torch._dynamo  # noqa: F401 - operations on the meta device load it on their first call


@lru_cache(maxsize=4096)
def step_cost(spec: NetworkSpec) -> StepCost:
    """Cost of a training step in 16 bit of the network ``spec``.

    A step of one patch is run on the meta device, which computes shapes only, and the bytes of all tensors alive are
    followed.
    """
    with torch.device("meta"):
        network = build_network(spec).to(torch.bfloat16).train()
    weights = sum(parameter.numel() for parameter in network.parameters())
    edge = PROBE_EDGES.get(spec.architecture, PROBE_EDGE)
    patch = tuple(factor * (edge if size > 1 else 1) for factor, size in zip(spec.downsampling, _kernel(spec)))
    with StepCounter() as counted:
        image = torch.empty(1, spec.in_channels, *patch, device="meta")
        classes = torch.empty(1, *patch, device="meta", dtype=torch.long)
        deep_supervision_loss(network(image.bfloat16()), classes, False, _target(spec)).backward()
    return StepCost(
        fixed_bytes=weights * BYTES_PER_WEIGHT,
        bytes_per_voxel=counted.peak_bytes / prod(patch),
        flops_per_voxel=counted.flops / prod(patch),
    )


def _target(spec: NetworkSpec) -> Target:
    """Of the loss: a single output can only be a region. Softmax and sigmoid take the same memory."""
    return Target(regions=((1,),)) if spec.classes == 1 else LABELS


def _kernel(spec: NetworkSpec) -> Shape:
    """Largest kernel along each axis: 1 along z in 2-D networks, which see one slice."""
    return as_shape(max(kernel[axis] for kernel in spec.kernels) for axis in range(3))


class Measured(Record):
    """What a real training step took on a GPU: GB of all tensors, GB that the allocator held for them, and seconds.

    ``step_s`` is None in plans of earlier versions.
    """

    tensors_gb: float
    held_gb: float
    step_s: float | None = None


def measure_step(
    spec: NetworkSpec,
    patch_size: Shape,
    batch_size: int,
    device: torch.device,
    memory_gb: float,
    steps: int = MEASURED_STEPS,
) -> Measured | None:
    """Runs training steps on a CUDA device of which only ``memory_gb`` may be used; None if that is too little.

    As a training runs them, with the algorithms tried out. The optimiser's state exists from the second step on, so
    that ``steps`` should be two or more; the first of them chooses algorithms, and is not timed.
    """
    device = numbered(device)
    wanted_share = max(0.0, memory_gb - CONTEXT_GB) * GIGABYTE / torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(memory_share(device), wanted_share), device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with tuned_convolutions(device):
            step_s = run_steps(spec, patch_size, batch_size, device, steps)
        return Measured(
            tensors_gb=torch.cuda.max_memory_allocated(device) / GIGABYTE,
            held_gb=torch.cuda.max_memory_reserved(device) / GIGABYTE,
            step_s=step_s,
        )
    except RuntimeError as error:
        if ran_out_of_memory(error):
            return None
        raise
    finally:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(memory_share(device), device)


def run_steps(spec: NetworkSpec, patch_size: Shape, batch_size: int, device: torch.device, steps: int) -> float:
    """Training steps on noise: mixed precision, loss of all outputs, backward, and the optimiser that training uses.

    Returns the seconds of a step, by the clock of the device: the mean over all but the first. After that first one
    the workspace of the algorithms that were tried out is given back, as in a training.
    """
    precision = pick_precision("auto", device, for_training=True)
    network = fastest_layout(build_network(spec).to(device)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True, fused=True)
    image = torch.randn(batch_size, spec.in_channels, *patch_size, device=device)
    classes = torch.zeros(batch_size, *patch_size, device=device, dtype=torch.long)
    timer = DeviceTimer(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            outputs = network(image)
        deep_supervision_loss(outputs, classes, False, _target(spec)).backward()
        del outputs
        optimizer.step()

    step()
    release_workspace(device)
    with timer:
        for _ in range(steps - 1):
            step()
    return timer.read_s() / max(1, steps - 1)


class StepCounter(TorchDispatchMode):
    """Follows the bytes of all tensors that operations make inside the block, and adds up their arithmetic.

    ``peak_bytes`` is the most at one time, with one copy of the largest tensor of the operation under way: it may hold
    that in another layout or precision while it runs. ``flops`` are counted by the table of torch's FlopCounterMode,
    which itself would follow modules too and make counting, of which a plan does a lot, longer by a third or more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes_now = 0
        self.peak_bytes = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        for tensor in made:
            self._note(tensor.untyped_storage())
        used = [tensor for tensor in tree_leaves(args) if isinstance(tensor, Tensor)]
        workspace = max((tensor.untyped_storage().nbytes() for tensor in (*made, *used)), default=0)
        self.peak_bytes = max(self.peak_bytes, self.bytes_now + workspace)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.bytes_now += storage.nbytes()
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes_now -= self._sizes.pop(key)
