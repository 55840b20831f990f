"""Networks made ready to predict: with their weights, in 16 bit where that is wanted, compiled with a way back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segfw.base.records import UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.words import first_line
from segfw.inference.summands import gives_features
from segfw.inference.tile_runner import filled_up
from segfw.kernels.trial import has_triton, why_not
from segfw.model.load import Model
from segfw.networks import BuildNetwork, fastest_layout
from segfw.networks.fused_layers import with_fused_norms

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def ready_networks(
    model: Model,
    device: torch.device,
    precision: torch.dtype,
    build: BuildNetwork,
    *,
    use_compiler: bool,
    use_kernels: bool = False,
) -> tuple[nn.Module, ...]:
    """One network per fold of the model, on the device; UserError if its weights do not fit the plan.

    What ``use_kernels`` asks for is done where Triton is there; else a line says that it is not.
    """
    networks = []
    if use_kernels and not has_triton(device):
        print(f"--kernels on: {why_not(device)}; going on without them")
        use_kernels = False
    for fold, weights in model.weights.items():
        network = build(model.configuration.network)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            name = f"{model.configuration.name} fold {fold}"
            raise UserError(
                f"the weights of {name} do not fit the plan ({first_line(error)}); if they were trained with a network "
                "of your own (build=), predict with that, or choose other folds; else train the fold again"
            ) from None
        network = fastest_layout(in_precision(network, precision).to(device)).eval()
        if use_kernels:
            network = with_fused_norms(network, device)
        networks.append(compile_network(network) if use_compiler else network)
    return tuple(networks)


def in_precision(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """The network with the weights of its convolutions in ``precision``, as autocast would give them at every call.

    The last layer of a U-Net stays in float32, since its features may be multiplied by it in float32.
    """
    last = network.heads if gives_features(network) else None
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS) and (last is None or module not in last):
            module.to(precision)
    return network


def compile_network(network: nn.Module) -> nn.Module:
    """The network, compiled at its first tile; a notice, and as it was, where that does not work."""
    name = "features" if gives_features(network) else "forward"
    setattr(network, name, with_way_back(getattr(network, name)))
    return network


def with_way_back(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``function`` compiled; from the first failure of the compiler on as it is.

    Smaller batches are filled up to the largest so far, so that there is one program: a second one would take as long
    to make, and one for any size would be slower. After a lack of memory the size is found anew.
    """
    run = torch.compile(function, dynamic=False)
    largest = 0

    def try_first(image: Tensor) -> Tensor:
        nonlocal run, largest
        if run is function:
            return run(image)
        largest = max(largest, len(image))
        try:
            return run(filled_up(image, largest))[: len(image)]
        except Exception as error:  # the compiler fails in too many ways to list
            if ran_out_of_memory(error):
                largest = 0
                raise
            reason = first_line(error)
        print(f"note: torch.compile is not usable here, going on without it: {reason[:160]}")
        run = function
        return run(image)

    return try_first
