"""Why a plan is as it is, in sentences for its reader."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

from segfw.dataset.cases import DatasetManifest
from segfw.grid.normalize import Normalization
from segfw.images.geometry import Spacing
from segfw.networks.spec import MEDNEXT, SEGRESNET, SWIN_UNETR
from segfw.planning.fitting import Choice
from segfw.planning.rules import LARGEST_DATASET_SHARE, LOWRES_COVERAGE, MOST_PATCHES_2D, MOST_PATCHES_3D
from segfw.planning.topology import SAME_SCALE, SMALLEST_FEATURE_EDGE

SCALINGS = {"ct": "clipped and scaled with data-set statistics of the foreground", "zscore": "mean 0, deviation 1"}
FOREIGN = {SEGRESNET: "SegResNet", SWIN_UNETR: "Swin UNETR", MEDNEXT: "MedNeXt-B"}


def of_dataset(
    manifest: DatasetManifest,
    normalization: tuple[Normalization, ...],
    target: Spacing,
    order: tuple[int, int, int],
    spacing_source: str,
    length_unit: str,
) -> tuple[str, ...]:
    """Spacing, order of axes and normalisation."""
    spacing = " x ".join(f"{value:.4g}" for value in target)
    reasons = [f"Target spacing (z, y, x) {spacing} {length_unit}: {spacing_source}."]
    if order != (0, 1, 2):
        reasons.append(
            f"The network sees the axes in the order {''.join('zyx'[axis] for axis in order)}: coarsest first."
        )
    for channel, rule in zip(manifest.channels, normalization):
        scaling = SCALINGS.get(rule.kind, rule.kind)
        inside = " inside the non-zero voxels" if rule.inside_mask else ""
        why = "CT has absolute units" if rule.kind == "ct" else "per image"
        reasons.append(f"Channel {channel.name!r}: {scaling}{inside} ({why}).")
    return tuple(reasons)


def of_slices(order: tuple[int, int, int], sides: Collection[int]) -> tuple[str, ...]:
    """Where slices lie with regard to the axes along which left becomes right, if the labels know sides."""
    if not sides:
        return ()
    across = "zyx"[order[0]]
    if order[0] in sides:
        return (
            f"Slices lie across {across}, along which left becomes right: in a slice both sides look alike, and the "
            "network cannot tell them apart.",
        )
    if min(sides) == max(sides) == 2 and order == (0, 1, 2):  # as images usually lie
        return ()
    along = " and ".join("zyx"[axis] for axis in sorted(sides))
    return (f"Slices lie across {across}, so that left and right, which lie apart along {along}, are seen in a slice.",)


def of_rule(*, as_published: bool, has_lowres: bool, is_flat: bool, is_foreign: bool) -> tuple[str, ...]:
    """Where the plan departs from the published recipe, and whether there is a low resolution."""
    sentences = []
    if is_foreign:
        sentences.append(
            "The network is none of nnU-Net's: spacing and intensities follow the recipe, patch and batch fill the "
            f"memory that a training step was counted to take, with at most {LARGEST_DATASET_SHARE:.0%} of all "
            f"training voxels and {MOST_PATCHES_3D} volumes or {MOST_PATCHES_2D} slices in a batch."
        )
    elif as_published:
        sentences.append("Planned as published: memory is counted in convolution outputs, as nnU-Net does.")
    else:
        sentences.append(
            "Unlike the published recipe, memory is what a training step was counted to take, every preset keeps a "
            f"batch under {LARGEST_DATASET_SHARE:.0%} of all training voxels, and a batch has at most "
            f"{MOST_PATCHES_3D} volumes or {MOST_PATCHES_2D} slices; --as-published plans without these repairs."
        )
    if has_lowres:
        sentences.append(
            f"A patch at full resolution sees under {LOWRES_COVERAGE:.0%} of the median case, so a low resolution is "
            "planned beside it, and a cascade of both."
        )
    elif not is_flat:
        sentences.append("No low resolution: a patch at full resolution sees enough of the median case.")
    return tuple(sentences)


def of_choice(choice: Choice, median_shape: Sequence[float], spacing_mm: Sequence[float | None]) -> tuple[str, ...]:
    """Patch, depth and batch."""
    patch = choice.patch_size
    size = " x ".join(str(edge) for edge in patch)
    covered = min(1.0, prod(patch) / prod(median_shape))
    if choice.was_shrunk:
        why = "reduced until it fits the memory"
    elif all(edge >= size for edge, size in zip(patch[::-1], median_shape[::-1]) if edge > 1):
        why = "as large as the median case needs"
    else:
        why = "the largest that is planned"
    return (
        f"Patch {size} voxels, {why}; it covers {covered:.0%} of the median case.",
        *_of_depth(choice, median_shape, spacing_mm),
        f"Batch of {choice.batch_size}: {choice.batch_limit}.",
    )


def _of_depth(choice: Choice, median_shape: Sequence[float], spacing_mm: Sequence[float | None]) -> tuple[str, ...]:
    """How deep the network is, and what a foreign one makes of thick slices and small cases."""
    network = choice.network
    stages = len(network.features)
    if network.architecture not in FOREIGN:
        return (
            f"U-Net with {stages} stages: axes are halved while they keep at least {SMALLEST_FEATURE_EDGE} voxels at "
            "the bottom.",
        )
    known = [spacing for spacing in spacing_mm if spacing is not None]
    if max(known) < SAME_SCALE * min(known):
        halving = "all axes are halved alike"
    elif network.architecture == SEGRESNET:
        halving = "finer axes are halved alone until the others are as fine, then all alike"
    else:
        halving = "all axes are halved alike; it cannot spare the coarser ones, which the U-Net of other presets does"
    name = FOREIGN[network.architecture]
    multiple = " x ".join(map(str, network.downsampling))
    sentences = [f"MONAI's {name} with {stages} stages: {halving}, so patches are multiples of {multiple}."]
    for axis, patch, size in zip(("first", "second", "third"), choice.patch_size, median_shape):
        if patch >= 2 * size > 2:
            sentences.append(
                f"Along the {axis} axis most of a patch of {patch} is padding: cases have {size:g} voxels there."
            )
    return tuple(sentences)
