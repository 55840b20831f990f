"""From an image to a mask on the image's own grid, by a model that is loaded once and used for many images.

The second stage of a cascade runs the first one by itself and hands its classes on, directly from one network's grid
to the other's; as published they take a detour over the image's own grid, which training does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from segfw.base.device import compiling_pays_in_prediction, keep_freed_pages, pick_device, pick_precision
from segfw.base.records import UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.stopwatch import CaseTimes, Stopwatch
from segfw.base.words import first_line
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import PreprocessRecord, outside_of, preprocess_classes, preprocess_image
from segfw.grid.restore import Restoring, restored
from segfw.grid.slabs import Slab
from segfw.images.volume import Volume
from segfw.inference.accumulator import say_on_host
from segfw.inference.compiled import compile_network, in_precision
from segfw.inference.host_memory import Limits, activation_bytes, room_bytes
from segfw.inference.image_types import opened
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import members_of
from segfw.inference.tile_runner import CPU_VOXELS_PER_BATCH, MOST_KNOWN
from segfw.inference.tiles import tile_count
from segfw.model.load import Model
from segfw.networks import build_network, fastest_layout
from segfw.planning.mirroring import input_orders, output_orders
from segfw.planning.plan import Configuration, Plan

__all__ = ["CaseTimes", "Predictor", "Prepared", "Sink", "Stopwatch"]
CASES_AT_ONCE = 2  # one is read while another is predicted
CERTAIN = 20.0  # logit of what is not in doubt


class Sink(Protocol):
    """Something that is made of a prediction's logits as they come."""

    def add(self, slab: Slab) -> None:
        """Takes the next slab, which is valid only during the call."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image (C, Z, Y, X) on a network's grid and how to come back; ``previous`` is the same on the first stage's.

    ``is_empty`` images hold nothing but zeros, where the model looks at other voxels alone. ``outside`` is where the
    image holds nothing, if the first stage's classes are to come here by nnU-Net's way (``preprocess.outside_of``).
    """

    image: Tensor
    record: PreprocessRecord
    previous: Prepared | None = None
    is_empty: bool = False
    outside: np.ndarray | None = None

    @property
    def held_bytes(self) -> int:
        """Memory of the case while it is read and predicted, without what the network takes."""
        stages = self.image.nbytes + (self.previous.held_bytes if self.previous else 0)
        stages += 0 if self.outside is None else self.outside.nbytes
        return stages + 4 * len(self.image) * prod(self.record.original.shape)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model ready to predict: the networks of all folds in memory, used for any number of images.

    ``room_bytes`` is what it may take of the host's memory beyond what the process took when all models were loaded.
    """

    plan: Plan
    configuration: Configuration
    networks: tuple[nn.Module, ...]
    device: torch.device
    precision: torch.dtype
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    previous: Predictor | None = None  # the first stage of a cascade
    room_bytes: float = float("inf")
    limits: Limits = field(default_factory=Limits)

    @staticmethod
    def of(
        model: Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        step: float = 0.5,
        mirroring: bool = True,
        max_memory_gb: float | None = None,
        scratch: Path | None = None,
        compile: bool | None = None,
        cases: int = 1,
        build: Callable[..., nn.Module] = build_network,
    ) -> Predictor:
        """Builds one network per fold of ``model`` on the device; mirrors along the axes that training mirrored.

        ``max_memory_gb`` is what the process may take of the host's memory; by default four fifths of what is free.
        ``scratch`` is the folder for sums that do not fit in it, by default the system's for temporary files.
        ``compile`` says whether torch.compile is used; None: where it pays for so many ``cases``.
        """
        if not 0 < step <= 1:
            raise UserError(f"--step is {step}; give a share of the tile between 0 and 1, such as 0.5")
        if model.configuration.previous_stage is not None and model.previous is None:
            raise ValueError(f"{model.configuration.name} is a second stage; give the model of the first one too")
        keep_freed_pages()
        chosen, axes = pick_device(device), model.mirror_axes if mirroring else ()
        arithmetic = pick_precision(precision, chosen, as_nnunet=model.plan.is_imported)
        if compile is None:
            shape = tuple(round(size) for size in model.configuration.median_shape)
            tiles = tile_count(shape, model.configuration.patch_size, step) * 2 ** len(axes) * len(model.weights)
            compile = compiling_pays_in_prediction(chosen, cases * tiles)
        networks = []
        for weights in model.weights.values():
            network = build(model.configuration.network)
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                reason = first_line(error)
                raise UserError(f"the weights do not fit the plan ({reason}); train again") from None
            network = fastest_layout(in_precision(network, arithmetic).to(chosen)).eval()
            networks.append(compile_network(network) if compile else network)
        options = {"device": device, "precision": precision, "step": step, "mirroring": mirroring, "build": build}
        previous = model.previous and Predictor.of(
            model.previous, max_memory_gb=max_memory_gb, scratch=scratch, compile=compile, cases=cases, **options
        )
        return Predictor(
            plan=model.plan,
            configuration=model.configuration,
            networks=tuple(networks),
            device=chosen,
            precision=arithmetic,
            step=step,
            mirror_axes=axes,
            previous=previous,
            room_bytes=room_bytes(max_memory_gb),
            limits=Limits(folder=scratch),
        )

    def with_room(self, room_bytes: float) -> Predictor:
        """The same with other room, its first stage too."""
        return replace(self, room_bytes=room_bytes, previous=self.previous and self.previous.with_room(room_bytes))

    def prepare(self, volume: Volume) -> Prepared:
        """The image on the network's grid; raises UserError if the channels do not match the model's."""
        expected, found = len(self.plan.channels), volume.array.shape[0]
        if found != expected:
            names = ", ".join(channel.name for channel in self.plan.channels)
            raise UserError(f"the image has {found} channels, but the model was trained on {expected} ({names})")
        how = self.configuration.preprocessing
        is_empty = any(rule.inside_mask for rule in how.normalization) and not volume.array.any()
        if is_empty:  # there is nothing to measure inside the mask
            how = how.model_copy(update={"normalization": (Normalization(kind="none"),) * expected})
        image, record = preprocess_image(volume, how)
        previous = self.previous and self.previous.prepare(volume)
        outside = outside_of(volume, record) if self.configuration.previous_through_file else None
        return Prepared(image=image, record=record, previous=previous, is_empty=is_empty, outside=outside)

    def slabs(self, prepared: Prepared, by_member: bool = False) -> Iterator[Slab]:
        """Logits of a prepared image, slab by slab, by all stages; ``by_member`` tells the folds of the last apart."""
        if prepared.is_empty:
            yield self._background(prepared, by_member)
            return
        found = None
        if self.previous is not None:
            first = prepared.previous
            to = first.record, prepared.record
            if self.configuration.previous_through_file:
                handed_on = self.previous.hand_on_through_file(self.previous.slabs(first), *to, prepared.outside)
            else:
                handed_on = self.previous.hand_on(self.previous.slabs(first), *to)
            found = torch.from_numpy(handed_on)
        yield from self.network_slabs(prepared.image, found, by_member=by_member, held_bytes=prepared.held_bytes)

    def network_slabs(
        self, image_czyx: Tensor, previous_zyx: Tensor | None = None, *, by_member: bool = False, held_bytes: int = 0
    ) -> Iterator[Slab]:
        """Logits of a preprocessed image by this stage's networks alone.

        The second stage of a cascade also takes the classes that the first one found on the same grid.
        """
        chosen, channels, labels = self.configuration, len(self.plan.channels), self.plan.labels
        members = members_of(
            self.networks,
            self.mirror_axes,
            output_orders=output_orders(chosen.swapped_pairs, labels),
            input_orders=input_orders(chosen.swapped_pairs, channels, chosen.network.in_channels),
            by_member=by_member,
        )
        other = CASES_AT_ONCE * max(held_bytes, image_czyx.nbytes)
        if self.device.type == "cpu":
            copies = max(1, CPU_VOXELS_PER_BATCH // prod(chosen.patch_size))
            tiles = max(1, copies // 2 ** len(self.mirror_axes)) + MOST_KNOWN
            other += activation_bytes(chosen.network, chosen.patch_size, copies, self.precision.itemsize)
            summed = members.heads.weights_ka[0].shape[1] if members.heads else members.group_count * labels.outputs
            other += tiles * 4 * summed * prod(chosen.patch_size)
        return sliding_window(
            image_czyx,
            members,
            chosen.patch_size,
            step=self.step,
            device=self.device,
            precision=self.precision,
            previous_zyx=previous_zyx,
            previous_classes=chosen.previous_classes,
            room_bytes=self.room_bytes - other,
            limits=self.limits,
        )

    def _background(self, prepared: Prepared, by_member: bool) -> Slab:
        """All slices of an image that holds nothing, without running a network."""
        labels, shape = self.plan.labels, tuple(prepared.image.shape[1:])
        logits_k = torch.full((labels.outputs,), -CERTAIN if labels.regions else 0.0)
        if not labels.regions:
            logits_k[0] = CERTAIN
        members = len(self.networks) if by_member else 1
        channels = logits_k.repeat(members)[:, None, None, None].expand(-1, *shape)
        return Slab(first=0, start=0, stop=shape[0], channels_azyx=channels, members=members)

    def hand_on(self, slabs: Iterable[Slab], record: PreprocessRecord, target: PreprocessRecord) -> np.ndarray:
        """Classes (Z, Y, X) that this stage found, on the grid of the next one."""
        return restored(slabs, record, self.plan.labels.painted_classes, target)

    def hand_on_through_file(
        self,
        slabs: Iterable[Slab],
        record: PreprocessRecord,
        target: PreprocessRecord,
        outside_zyx: np.ndarray | None,
    ) -> np.ndarray:
        """As ``hand_on``, by nnU-Net's detour over the image's own grid; ``outside_zyx`` is that of ``outside_of``."""
        found = restored(slabs, record, self.plan.labels.painted_classes)
        volume = Volume(array=found[None], geometry=record.original)
        return preprocess_classes(volume, target, outside_zyx).numpy()

    def classes(
        self,
        prepared: Prepared,
        sinks: Sequence[Sink] = (),
        *,
        by_member: bool = False,
        watch: Stopwatch | None = None,
    ) -> np.ndarray:
        """Class indices (Z, Y, X) on the original file's grid; every slab is shown to the ``sinks`` as well.

        ``watch`` is told the seconds of the network and of all that is made of its logits.
        """
        watch = watch or Stopwatch()
        restoring = Restoring(prepared.record, self.plan.labels.painted_classes)
        stream = self.slabs(prepared, by_member)
        while True:
            with watch.timing("network_s"):
                slab = next(stream, None)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            with watch.timing("restore_s"):
                if slab is None:
                    return restoring.result()
                self._restore(restoring, slab)
                for sink in sinks:
                    sink.add(slab)

    def _restore(self, restoring: Restoring, slab: Slab) -> None:
        try:
            restoring.add(slab)
            return
        except Exception as error:
            if slab.channels_azyx.device.type == "cpu" or not ran_out_of_memory(error):
                raise
        say_on_host(self.limits)
        torch.cuda.empty_cache()
        restoring.add(slab.on_host())  # from the slab's beginning

    def finish(self, classes_zyx: np.ndarray) -> np.ndarray:
        """Label values as in the training files, of class indices."""
        return self.plan.labels.to_values(classes_zyx)

    def __call__(self, image: Any, affine: np.ndarray | None = None) -> Any:
        """The mask of an image, in label values on its own grid and of its own kind.

        ``image`` is a path, a list of paths (one per channel), a ``Volume``, a SimpleITK or nibabel image, or an array
        (X, Y, Z) or (X, Y, Z, C) with its ``affine`` to RAS mm. ``inference.kinds.opened`` says what comes back.
        """
        volume, mask_of = opened(image, affine)
        return mask_of(self.finish(self.classes(self.prepare(volume))))
