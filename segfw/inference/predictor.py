"""From an image to a mask on the image's own grid, by a model that is loaded once and used for many images.

The way of one image, with the file that each step is in::

    image (C, Z, Y, X) of a file, an array, SimpleITK or nibabel                          image_types.py
      |  turned, cropped, normalised, resampled to the spacing of the plan                grid/preprocess.py
      v
    network's grid (C, Z, Y, X), and a record of how to come back                         Prepared, below
      |
      |      z                tiles of the patch's size, half a tile apart                tiles.py
      |      |  +-------+-------+
      |      v  | layer 0   +-------+    A layer is the tiles that begin in one slice:
      |         +-------+---|   |   |    when all of it was run, the slices before the
      |             | layer 1   |   |    next layer are finished.
      |             +-------+---+---+
      v
    each tile, mirrored along every subset of the axes, through the network of each fold  tile_runner.py
      |      which of these outputs are averaged, and whether it is logits or the
      |      features before the last layer that are: whichever are fewer                 summands.py
      v
    sums (A, z, Y, X) of the slices of one layer, weighted by a Gaussian, whose weights   accumulator.py
      |      in a voxel add up to 1; they move on layer by layer, and to the host's
      |      memory or disk where the device has no room                                  host_memory.py
      v
    slabs: finished slices, from which logits (K, z, Y, X) can be had                     grid/slabs.py
      |      all of the above is one loop over layers                                     sliding_window.py
      +--> sinks, which write probabilities or maps of doubt                              probabilities.py,
      |                                                                                   uncertainty.py
      v
    classes (Z, Y, X) on the image's own grid, block by block: logits are resampled back  grid/restore.py
      |      and the largest wins, or every region above 0; or of some structures the mask
      |      of largest expected Dice                                                       grid/expected_dice.py
      v
    mask: the values of the training files, in the kind of the image                      image_types.py

Never do all logits of an image exist at once: memory grows neither with its length nor with the number of classes.

Around it: many_cases.py leads many files through it, a case in each stage; selected_predictor.py averages several
models; held_out.py predicts what a fold did not see, and first_stage.py hands labels of a first stage to the training
of a second one.

The second stage of a cascade runs the first one by itself and hands its classes on, directly from one network's grid
to the other's; as published they take a detour over the image's own grid, which training does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segfw.base.device import (
    compiling_pays_in_prediction,
    keep_freed_pages,
    keep_to_device_memory,
    pick_device,
    pick_precision,
    tune_convolutions,
)
from segfw.base.gpu_faults import require_right_gpu
from segfw.base.options import named_by_keyword
from segfw.base.records import UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.stopwatch import Stopwatch
from segfw.base.words import count
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import PreprocessRecord, orientation_note, outside_of, preprocess_classes, preprocess_image
from segfw.grid.restore import Restoring, restored
from segfw.grid.slabs import Slab
from segfw.images.geometry import as_shape
from segfw.images.volume import Volume
from segfw.inference.host_memory import LearnedLimits, activation_bytes, host_room_bytes
from segfw.inference.image_types import open_image
from segfw.inference.predict_protocol import SlabSink
from segfw.inference.prediction_options import PredictOptions
from segfw.inference.ready_networks import ready_networks
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import Summands, summands_of
from segfw.inference.tile_runner import MOST_KNOWN, copies_per_batch
from segfw.inference.tiles import tile_count
from segfw.model.load import Model, require_predicting
from segfw.networks import BuildNetwork, build_network
from segfw.planning.mirroring import input_orders, output_orders
from segfw.planning.plan import Configuration, Plan
from segfw.planning.published import TILE_STEP

CASES_AT_ONCE = 2  # one is read while another is predicted
CASES_AT_ONCE_ON_A_GPU = 3  # two are read
CERTAIN = 20.0  # logit of what is not in doubt


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

    def with_image(self, image_czyx: Tensor) -> Prepared:
        """The same with other intensities, for this stage alone."""
        return replace(self, image=image_czyx, is_empty=False)

    @property
    def held_bytes(self) -> int:
        """Memory of the case while it is read and predicted, without what the network takes."""
        total = self.image.nbytes
        if self.previous is not None:
            total += self.previous.held_bytes
        if self.outside is not None:
            total += self.outside.nbytes
        float32_image = 4 * len(self.image) * prod(self.record.original.shape)
        return total + float32_image


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model ready to predict: the networks of all folds in memory, used for any number of images.

    Made by ``Predictor.of``. ``room_bytes`` is what it may take of the host's memory beyond what the process took when
    all models were loaded; ``limits`` is what was found to fit on the way.
    """

    plan: Plan
    configuration: Configuration
    networks: tuple[nn.Module, ...]
    device: torch.device
    precision: torch.dtype
    step: float = TILE_STEP
    mirror_axes: tuple[int, ...] = ()
    previous: Predictor | None = None  # the first stage of a cascade
    room_bytes: float = float("inf")
    limits: LearnedLimits = field(default_factory=LearnedLimits)

    @staticmethod
    @named_by_keyword((PredictOptions,))
    def of(
        model: Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        step: float = TILE_STEP,
        mirroring: bool = True,
        max_memory_gb: float | None = None,
        scratch: Path | None = None,
        compile: bool | None = None,
        kernels: bool = False,
        cases: int = 1,
        build: BuildNetwork = build_network,
    ) -> Predictor:
        """Builds one network per fold of a model on a device; mirrors along the axes that training mirrored.

        Parameters
        ----------
        model
            A loaded model, of ``load_model``; the second stage of a cascade brings the first one along.
        device
            'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.
        precision
            'auto', 'fp32', 'bf16' or 'fp16'.
        step
            Distance of neighbouring tiles, as a share of the tile: above 0, at most 1.
        mirroring
            Whether mirrored copies are predicted as well, and averaged.
        max_memory_gb
            What the process may take of the host's memory, in GB; by default four fifths of what is free.
        scratch
            Folder for sums that do not fit in it, by default the system's for temporary files.
        compile
            Whether torch.compile is used; None: where it pays for so many ``cases``.
        kernels
            Whether norms and activations are Triton kernels, where Triton is there; nothing is compiled then unless
            ``compile`` asks for it.
        cases
            How many images will be predicted, about.
        build
            Makes a network of a plan's ``NetworkSpec``; for architectures of one's own.

        Returns
        -------
        Predictor
            Ready for any number of images.

        Raises
        ------
        UserError
            If ``step`` is out of range, the device does not exist, the weights do not fit the plan, or
            ``max_memory_gb`` is taken already.
        """
        if not 0 < step <= 1:
            raise UserError(f"--step is {step}; give a share of the tile between 0 and 1, such as 0.5")
        configuration = model.configuration
        require_predicting(configuration, model.plan.dataset)
        if configuration.previous_stage is not None and model.previous is None:
            raise ValueError(f"{configuration.name} is a second stage; give the model of the first one too")

        # The networks
        keep_freed_pages()
        picked = pick_device(device)
        arithmetic = pick_precision(precision, picked, as_nnunet=model.plan.is_imported)
        require_right_gpu(picked, arithmetic)
        keep_to_device_memory(picked)
        tune_convolutions(picked)  # tiles have few sizes
        axes = model.mirror_axes if mirroring else ()
        use_compiler = compile
        if use_compiler is None:
            tiles = tile_count(as_shape(map(round, configuration.median_shape)), configuration.patch_size, step)
            runs = cases * tiles * 2 ** len(axes) * len(model.weights)
            use_compiler = not kernels and compiling_pays_in_prediction(picked, runs)
        networks = ready_networks(model, picked, arithmetic, build, use_compiler=use_compiler, use_kernels=kernels)

        # The first stage of a cascade
        previous = None
        if model.previous is not None:
            previous = Predictor.of(
                model.previous,
                device=device,
                precision=precision,
                step=step,
                mirroring=mirroring,
                max_memory_gb=max_memory_gb,
                scratch=scratch,
                compile=use_compiler,
                kernels=kernels,
                cases=cases,
                build=build,
            )
        return Predictor(
            plan=model.plan,
            configuration=configuration,
            networks=networks,
            device=picked,
            precision=arithmetic,
            step=step,
            mirror_axes=axes,
            previous=previous,
            room_bytes=host_room_bytes(max_memory_gb),
            limits=LearnedLimits(scratch=scratch),
        )

    def with_room(self, room_bytes: float) -> Predictor:
        """The same with other room in the host's memory, its first stage too.

        Parameters
        ----------
        room_bytes
            What it may take beyond what the process takes now.

        Returns
        -------
        Predictor
            With the same networks; nothing is copied.
        """
        previous = None if self.previous is None else self.previous.with_room(room_bytes)
        return replace(self, room_bytes=room_bytes, previous=previous)

    def prepare(self, volume: Volume) -> Prepared:
        """The image on the network's grid: turned, cropped, normalised, resampled.

        Parameters
        ----------
        volume
            Array (C, Z, Y, X) with its place; it is not changed.

        Returns
        -------
        Prepared
            Image (C, Z, Y, X), and how to come back.

        Raises
        ------
        UserError
            If the image has not the model's channels.
        """
        expected = len(self.plan.channels)
        found = volume.array.shape[0]
        if found != expected:
            names = ", ".join(channel.name for channel in self.plan.channels)
            raise UserError(
                f"the image has {count(found, 'channel')}, but the model was trained on {expected} ({names})"
            )
        preprocessing = self.configuration.preprocessing
        is_empty = any(rule.inside_mask for rule in preprocessing.normalization) and not volume.array.any()
        if is_empty:  # there is nothing to measure inside the mask
            unchanged = (Normalization(kind="none"),) * expected
            preprocessing = preprocessing.model_copy(update={"normalization": unchanged})
        image, record = preprocess_image(volume, preprocessing)
        return Prepared(
            image=image,
            record=record,
            previous=None if self.previous is None else self.previous.prepare(volume),
            is_empty=is_empty,
            outside=outside_of(volume, record) if self.configuration.previous_through_file else None,
        )

    def slabs(self, prepared: Prepared, by_member: bool = False) -> Iterator[Slab]:
        """Logits of a prepared image, slab by slab, by all stages.

        Parameters
        ----------
        prepared
            What ``prepare`` made of the image.
        by_member
            Whether slabs tell the folds of the last stage apart, instead of having their mean alone.

        Yields
        ------
        Slab
            Finished slices of the network's grid, in order; valid until the next one is asked for.
        """
        if prepared.is_empty:
            yield self._background(prepared, by_member)
            return
        found = self._of_first_stage(prepared)
        yield from self.network_slabs(prepared.image, found, by_member=by_member, held_bytes=prepared.held_bytes)

    def _of_first_stage(self, prepared: Prepared) -> Tensor | None:
        """What the first stage of a cascade finds, (Z, Y, X) on this stage's grid."""
        if self.previous is None or prepared.previous is None:
            return None
        slabs = self.previous.slabs(prepared.previous)
        grid = prepared.previous.record
        if self.configuration.previous_through_file:
            found = self.previous.hand_on_through_file(slabs, grid, prepared.record, prepared.outside)
        else:
            found = self.previous.hand_on(slabs, grid, prepared.record)
        return torch.from_numpy(found)

    def network_slabs(
        self, image_czyx: Tensor, previous_zyx: Tensor | None = None, *, by_member: bool = False, held_bytes: int = 0
    ) -> Iterator[Slab]:
        """Logits of a preprocessed image by this stage's networks alone.

        Parameters
        ----------
        image_czyx
            The image on the network's grid.
        previous_zyx
            For the second stage of a cascade: the classes that the first one found, on the same grid.
        by_member
            As for ``slabs``.
        held_bytes
            Memory that the case takes on the host besides, ``Prepared.held_bytes``.

        Yields
        ------
        Slab
            As ``slabs``.
        """
        configuration = self.configuration
        channels = len(self.plan.channels)
        summands = summands_of(
            self.networks,
            self.mirror_axes,
            output_orders=output_orders(configuration.swapped_pairs, self.plan.labels),
            input_orders=input_orders(configuration.swapped_pairs, channels, configuration.network.in_channels),
            by_member=by_member,
        )
        cases = CASES_AT_ONCE if self.device.type == "cpu" else CASES_AT_ONCE_ON_A_GPU
        cases_bytes = cases * max(held_bytes, image_czyx.nbytes)
        return sliding_window(
            image_czyx,
            summands,
            configuration.patch_size,
            step=self.step,
            device=self.device,
            precision=self.precision,
            previous_zyx=previous_zyx,
            previous_classes=configuration.previous_classes,
            room_bytes=self.room_bytes - cases_bytes - self._network_bytes(summands),
            limits=self.limits,
        )

    def _network_bytes(self, summands: Summands) -> int:
        """What the networks take of the host's memory at work: their activations, and sums of tiles."""
        if self.device.type != "cpu":
            return 0
        patch_size = self.configuration.patch_size
        copies = copies_per_batch(patch_size, self.device)
        tiles = max(1, copies // 2 ** len(self.mirror_axes)) + MOST_KNOWN
        if summands.heads is not None:
            summed_channels = summands.heads.weights_ka[0].shape[1]
        else:
            summed_channels = summands.group_count * self.plan.labels.outputs
        activations = activation_bytes(self.configuration.network, patch_size, copies, self.precision.itemsize)
        return activations + tiles * 4 * summed_channels * prod(patch_size)

    def _background(self, prepared: Prepared, by_member: bool) -> Slab:
        """All slices of an image that holds nothing, without running a network."""
        labels = self.plan.labels
        depth, height, width = prepared.image.shape[1:]
        logits_k = torch.full((labels.outputs,), -CERTAIN if labels.regions else 0.0)
        if not labels.regions:
            logits_k[0] = CERTAIN
        members = len(self.networks) if by_member else 1
        channels = logits_k.repeat(members)[:, None, None, None].expand(-1, depth, height, width)
        return Slab(first=0, start=0, stop=depth, channels_azyx=channels, members=members)

    def hand_on(self, slabs: Iterable[Slab], record: PreprocessRecord, target: PreprocessRecord) -> np.ndarray:
        """Classes (Z, Y, X) that this stage found, on the grid of the next one.

        Parameters
        ----------
        slabs
            This stage's logits.
        record, target
            How the image was preprocessed for this stage, and for the next one.

        Returns
        -------
        numpy.ndarray
            Class indices (Z, Y, X).
        """
        return restored(slabs, record, self.plan.labels.painted_classes, target)

    def hand_on_through_file(
        self,
        slabs: Iterable[Slab],
        record: PreprocessRecord,
        target: PreprocessRecord,
        outside_zyx: np.ndarray | None,
    ) -> np.ndarray:
        """As ``hand_on``, by nnU-Net's detour over the image's own grid.

        Parameters
        ----------
        slabs, record, target
            As for ``hand_on``.
        outside_zyx
            Where the image holds nothing, as ``outside_of`` says.

        Returns
        -------
        numpy.ndarray
            Class indices (Z, Y, X).
        """
        found = restored(slabs, record, self.plan.labels.painted_classes)
        volume = Volume(array=found[None], geometry=record.original)
        return preprocess_classes(volume, target, outside_zyx).numpy()

    def classes(
        self,
        prepared: Prepared,
        sinks: Sequence[SlabSink] = (),
        *,
        by_member: bool = False,
        watch: Stopwatch | None = None,
        only: Sequence[int] = (),
        temperatures: Mapping[int, float] | None = None,
    ) -> np.ndarray:
        """Class indices on the original file's grid.

        Parameters
        ----------
        prepared
            What ``prepare`` made of the image.
        sinks
            Are shown every slab as well.
        by_member
            As for ``slabs``.
        watch
            Is told the seconds of the network and of all that is made of its logits.
        only
            Classes that are wanted; 0 for all others, which costs less. Not of regions, nor with ``temperatures``.
        temperatures
            Of outputs (classes, or regions) that get their mask of largest expected Dice; log-odds are divided by them.

        Returns
        -------
        numpy.ndarray
            Class indices (Z, Y, X), 0 outside the crop.
        """
        watch = watch or Stopwatch()
        restoring = Restoring(
            prepared.record,
            self.plan.labels.painted_classes,
            only=only,
            temperatures=temperatures,
            scratch=self.limits.scratch,
        )
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
        self.limits.keep_sums_on_host()
        torch.cuda.empty_cache()
        restoring.add(slab.on_host())  # from the slab's beginning

    def finish(self, classes_zyx: np.ndarray) -> np.ndarray:
        """Label values as in the training files.

        Parameters
        ----------
        classes_zyx
            Class indices (Z, Y, X).

        Returns
        -------
        numpy.ndarray
            Values (Z, Y, X).
        """
        return self.plan.labels.to_values(classes_zyx)

    def __call__(self, image: Any, affine: np.ndarray | None = None) -> Any:
        """The mask of an image, in label values on its own grid and of its own kind.

        Parameters
        ----------
        image
            A path, a list of paths (one per channel), a ``Volume``, a SimpleITK or nibabel image, or an array (X, Y, Z)
            or (X, Y, Z, C).
        affine
            Of an array: 4 x 4, from (x, y, z) to RAS mm.

        Returns
        -------
        Any
            The mask; ``inference.image_types.open_image`` says of which kind.

        Raises
        ------
        UserError
            If the image cannot be read or has not the model's channels.
        """
        volume, mask_of = open_image(image, affine)
        note = orientation_note(volume, self.plan.orientation)
        if note:
            self.limits.say_once(f"an image: {note}")
        return mask_of(self.finish(self.classes(self.prepare(volume))))
