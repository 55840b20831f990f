"""From an image to a mask on the image's own grid: one case, or a folder of them.

The second stage of a cascade runs the first one by itself and hands its classes on, directly from one network's grid
to the other's; as published they take a detour over the image's own grid, which training does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segfw.data.geometry import Volume
from segfw.data.preprocess import PreprocessRecord, carry_over, preprocess_classes, preprocess_image, restore
from segfw.device import autocast, keep_freed_pages, pick_device, pick_precision
from segfw.inference.sliding_window import sliding_window
from segfw.model import Model
from segfw.networks import build_network, fastest_layout
from segfw.planning.mirroring import input_orders, output_orders
from segfw.planning.plan import Configuration, Plan
from segfw.records import UserError


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image (C, Z, Y, X) on a network's grid and how to come back; ``previous`` is the same on the first stage's."""

    image: Tensor
    record: PreprocessRecord
    previous: Prepared | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model ready to predict: the networks of all folds in memory, used for any number of images."""

    plan: Plan
    configuration: Configuration
    networks: tuple[nn.Module, ...]
    device: torch.device
    precision: torch.dtype
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    previous: Predictor | None = None  # the first stage of a cascade

    @staticmethod
    def of(
        model: Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        step: float = 0.5,
        mirroring: bool = True,
        build: Callable[..., nn.Module] = build_network,
    ) -> Predictor:
        """Builds one network per fold of ``model`` on the device; mirrors along the axes that training mirrored."""
        if not 0 < step <= 1:
            raise UserError(f"--step is {step}; give a share of the tile between 0 and 1, such as 0.5")
        if model.configuration.previous_stage is not None and model.previous is None:
            raise ValueError(f"{model.configuration.name} is a second stage; give the model of the first one too")
        keep_freed_pages()
        chosen = pick_device(device)
        networks = []
        for weights in model.weights.values():
            network = build(model.configuration.network)
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"the weights do not fit the plan ({reason}); train again") from None
            networks.append(fastest_layout(network.to(chosen)).eval())
        return Predictor(
            plan=model.plan,
            configuration=model.configuration,
            networks=tuple(networks),
            device=chosen,
            precision=pick_precision(precision, chosen),
            step=step,
            mirror_axes=model.mirror_axes if mirroring else (),
            previous=model.previous
            and Predictor.of(
                model.previous, device=device, precision=precision, step=step, mirroring=mirroring, build=build
            ),
        )

    @torch.inference_mode()
    def logits(self, image_czyx: Tensor, previous_zyx: Tensor | None = None) -> Tensor:
        """Logits (K, Z, Y, X) of a preprocessed image, on the device.

        The second stage of a cascade also takes the classes that the first one found on the same grid.
        """
        chosen, channels = self.configuration, len(self.plan.channels)
        with autocast(self.device, self.precision):
            return sliding_window(
                image_czyx,
                self.networks,
                chosen.patch_size,
                step=self.step,
                mirror_axes=self.mirror_axes,
                output_orders=output_orders(chosen.swapped_pairs, self.plan.labels),
                input_orders=input_orders(chosen.swapped_pairs, channels, chosen.network.in_channels),
                device=self.device,
                previous_zyx=previous_zyx,
                previous_classes=chosen.previous_classes,
            )

    def prepare(self, volume: Volume) -> Prepared:
        """The image on the network's grid; raises UserError if the channels do not match the model's."""
        expected, found = len(self.plan.channels), volume.array.shape[0]
        if found != expected:
            names = ", ".join(channel.name for channel in self.plan.channels)
            raise UserError(f"the image has {found} channels, but the model was trained on {expected} ({names})")
        image, record = preprocess_image(volume, self.configuration.preprocessing)
        return Prepared(image=image, record=record, previous=self.previous and self.previous.prepare(volume))

    def logits_of(self, prepared: Prepared) -> Tensor:
        """Logits (K, Z, Y, X) of a prepared image, on the device: all stages, one after the other."""
        if self.previous is None:
            return self.logits(prepared.image)
        first = prepared.previous
        found = self.previous.hand_on(
            self.previous.logits_of(first),
            first.record,
            prepared.record,
            through_file=self.configuration.previous_through_file,
        )
        return self.logits(prepared.image, torch.from_numpy(found))

    def hand_on(
        self, logits_kzyx: Tensor, record: PreprocessRecord, target: PreprocessRecord, *, through_file: bool = False
    ) -> np.ndarray:
        """Classes (Z, Y, X) that this stage found, on the grid of the next one.

        ``through_file`` takes the detour over the image's own grid that a stage trained by nnU-Net was trained with.
        """
        with torch.inference_mode():
            if through_file:
                found = restore(logits_kzyx, record, self.plan.labels.painted_classes)
                stored = Volume(array=found[None], geometry=record.original)
                return preprocess_classes(stored, target).numpy()
            return carry_over(logits_kzyx, record, target, self.plan.labels.painted_classes)

    def finish(self, logits_kzyx: Tensor, record: PreprocessRecord) -> np.ndarray:
        """Label values (Z, Y, X) as in the training files, on the original file's grid."""
        with torch.inference_mode():
            labels = self.plan.labels
            return labels.to_values(restore(logits_kzyx, record, labels.painted_classes))

    def __call__(self, volume: Volume) -> np.ndarray:
        """Label values (Z, Y, X) on the volume's own grid."""
        prepared = self.prepare(volume)
        return self.finish(self.logits_of(prepared), prepared.record)
