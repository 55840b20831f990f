"""What each network of a model finds, and how sure it is: all that predicted quality is made from, slab by slab.

Masks and maps are kept at a byte a voxel, and of probabilities only sums, so that memory does not grow with the number
of classes. A mask holds codes: the class that wins, or of regions the last one above 0, as masks are painted; which
codes belong to a structure says ``codes_of``.
"""

# K outputs, M members, N voxels, Z Y X space of the network's grid

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Block
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.slabs import Slab
from segfw.grid.winners import first_largest, last_above_zero

BLOCK_VALUES = 1 << 22  # logits that are looked at together
DOUBTFUL = (0.2, 0.8)  # probabilities between which a voxel may be either


def codes_of(labels: LabelSet) -> dict[str, tuple[int, ...]]:
    """Which codes of a mask belong to each structure.

    Of labels that is the label's class. Of regions a code is the number of the region that is painted last, and it
    belongs to every structure that holds what this one is painted as.
    """
    if not labels.regions:
        return dict(labels.structures)
    painted = labels.painted_classes
    return {
        name: tuple(code for code, paint in enumerate(painted) if paint in classes)
        for name, classes in labels.structures.items()
    }


def nothing_code(labels: LabelSet) -> int:
    """The code of background."""
    return labels.outputs if labels.regions else 0


def output_of(labels: LabelSet) -> dict[str, int]:
    """Number of the network's output that finds each structure."""
    return {name: labels.output_names.index(name) for name in labels.structures}


@dataclass(kw_only=True)
class MemberSums:
    """Sums over the voxels of one member, (K,) by output. Entropies are relative to the largest there is.

    ``mask`` counts the voxels of the output's mask m, ``inside`` adds its probability p there, ``everywhere`` adds p
    over all voxels, ``doubtful`` counts p between DOUBTFUL. ``entropy`` adds it in m; ``core_entropy`` where all four
    neighbours in the slice are of m too; ``rim_entropy`` on both sides of the border of m, once for every face between
    two voxels of a slice.
    """

    mask: np.ndarray
    inside: np.ndarray
    everywhere: np.ndarray
    doubtful: np.ndarray
    entropy: np.ndarray
    rim: np.ndarray
    rim_entropy: np.ndarray
    core: np.ndarray
    core_entropy: np.ndarray
    image_entropy: float = 0.0  # over all voxels
    voxels: int = 0

    @staticmethod
    def nothing(outputs: int) -> MemberSums:
        """Before the first slab."""
        return MemberSums(
            mask=np.zeros(outputs),
            inside=np.zeros(outputs),
            everywhere=np.zeros(outputs),
            doubtful=np.zeros(outputs),
            entropy=np.zeros(outputs),
            rim=np.zeros(outputs),
            rim_entropy=np.zeros(outputs),
            core=np.zeros(outputs),
            core_entropy=np.zeros(outputs),
        )


class MemberMaps:
    """A sink of slabs that keeps the mask of every member and of their mean, and sums for the features of each.

    Slabs that tell no members apart are of one member. After the last slab: ``classes``, a mask of codes (Z, Y, X) of
    each member; ``mean_classes`` by the mean logits; ``probability`` of what wins by the mean, and ``entropy`` of the
    mean, uint8, 255 stands for 1; ``sums`` of each member.

    Parameters
    ----------
    record
        How the image was brought to the network's grid.
    labels
        What the outputs are of.
    block_values
        Logits that are looked at together; no result depends on it, but for rounding.
    """

    def __init__(self, record: PreprocessRecord, labels: LabelSet, *, block_values: int = BLOCK_VALUES) -> None:
        self.record = record
        self.labels = labels
        self.classes: list[np.ndarray] = []
        self.sums: list[MemberSums] = []
        self.mean_classes = np.zeros((0, 0, 0), np.uint8)
        self.probability = np.zeros((0, 0, 0), np.uint8)
        self.entropy = np.zeros((0, 0, 0), np.uint8)
        self._block_values = block_values
        self._codes_of = codes_of(labels)
        # Which outputs' masks a code belongs to, (codes, K).
        self._belongs = np.zeros((labels.outputs + 1, labels.outputs), bool)
        for name, output in output_of(labels).items():
            self._belongs[list(self._codes_of[name]), output] = True
        if not labels.regions:
            self._belongs[0, 0] = True  # background is an output of its own

    @property
    def members(self) -> int:
        """How many networks the slabs told apart; 0 before the first slab."""
        return len(self.classes)

    def mask(self, structure: str, member: int | None = None) -> np.ndarray:
        """Where a structure is, (Z, Y, X) bool: by one member, or by the mean of all."""
        codes = self.mean_classes if member is None else self.classes[member]
        return is_any_of(codes, self._codes_of[structure])

    def add(self, slab: Slab) -> None:
        """Looks at the finished slices of a slab, of all members."""
        if not self.classes:
            self._begin(slab.member_count)
        _, height, width = self.record.shape
        # Whole slices, because the border of a mask is told within them.
        slices = max(1, self._block_values // (self.labels.outputs * height * width))
        for start in range(slab.start, slab.stop, slices):
            stop = min(start + slices, slab.stop)
            for member in range(self.members):
                found = self._look(slab, start, stop, member if self.members > 1 else None, self.sums[member])
                self.classes[member][start:stop] = found.codes_zyx
            if self.members > 1:
                found = self._look(slab, start, stop, None, None)
                self.mean_classes[start:stop] = found.codes_zyx
            self.probability[start:stop] = _as_bytes(found.probability_zyx)
            self.entropy[start:stop] = _as_bytes(found.entropy_zyx)

    def _begin(self, members: int) -> None:
        shape = self.record.shape
        dtype = np.uint8 if self.labels.outputs < 256 else np.uint16
        self.classes = [np.zeros(shape, dtype) for _ in range(members)]
        self.sums = [MemberSums.nothing(self.labels.outputs) for _ in range(members)]
        self.mean_classes = self.classes[0] if members == 1 else np.zeros(shape, dtype)
        self.probability = np.zeros(shape, np.uint8)
        self.entropy = np.zeros(shape, np.uint8)

    def _look(self, slab: Slab, start: int, stop: int, member: int | None, sums: MemberSums | None) -> _Found:
        """What one member, or the mean, says of some slices; adds to the sums, where there are some."""
        _, height, width = self.record.shape
        found = _Found.empty((stop - start, height, width))
        rows = max(1, self._block_values // (self.labels.outputs * width * (stop - start)))
        for y in range(0, height, rows):
            block = (slice(start, stop), slice(y, min(y + rows, height)), slice(0, width))
            self._look_at_block(slab.logits(block, member), block, found, sums)
        if sums is not None:
            add_entropies(sums, found.codes_zyx, found.entropy_zyx, self._belongs, nothing_code(self.labels))
        return found

    def _look_at_block(self, logits_kzyx: Tensor, block: Block, found: _Found, sums: MemberSums | None) -> None:
        p_kzyx, entropy_zyx = probabilities(logits_kzyx, is_regions=bool(self.labels.regions))
        largest_zyx = p_kzyx.amax(0)
        if self.labels.regions:
            codes_zyx = last_above_zero(logits_kzyx)
        else:
            codes_zyx = first_largest(logits_kzyx)
        place = (slice(None), block[1], slice(None))
        found.codes_zyx[place] = codes_zyx.cpu().numpy()
        found.entropy_zyx[place] = entropy_zyx.cpu().numpy()
        # Of regions, where none wins, what is told is how sure it is that there is none.
        certain_zyx = torch.maximum(largest_zyx, 1 - largest_zyx) if self.labels.regions else largest_zyx
        found.probability_zyx[place] = certain_zyx.cpu().numpy()
        if sums is None:
            return
        p_kn = p_kzyx.flatten(1)
        low, high = DOUBTFUL
        sums.everywhere += _on_host(p_kn.sum(1, dtype=torch.float64))
        sums.doubtful += _on_host(((p_kn > low) & (p_kn < high)).sum(1))
        codes_n = codes_zyx.flatten().long()
        if self.labels.regions:
            belongs_kn = torch.from_numpy(self._belongs).to(p_kn.device)[codes_n].T
            sums.mask += _on_host(belongs_kn.sum(1))
            sums.inside += _on_host((p_kn * belongs_kn).sum(1, dtype=torch.float64))
        else:  # of the winner the probability is the largest
            outputs = self.labels.outputs
            sums.mask += _on_host(torch.bincount(codes_n, minlength=outputs)[:outputs])
            weights_n = largest_zyx.flatten().double()
            sums.inside += _on_host(torch.bincount(codes_n, weights_n, minlength=outputs)[:outputs])


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one member says of some slices, (Z, Y, X) each on the host."""

    codes_zyx: np.ndarray
    probability_zyx: np.ndarray
    entropy_zyx: np.ndarray

    @staticmethod
    def empty(shape: tuple[int, int, int]) -> _Found:
        return _Found(
            codes_zyx=np.empty(shape, np.int32),
            probability_zyx=np.empty(shape, np.float32),
            entropy_zyx=np.empty(shape, np.float32),
        )


def probabilities(logits_kzyx: Tensor, *, is_regions: bool) -> tuple[Tensor, Tensor]:
    """Probabilities (K, Z, Y, X), and the entropy (Z, Y, X) as ``inference.uncertainty.entropy`` defines it."""
    if is_regions:
        p = logits_kzyx.sigmoid()
        entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).amin(0) / np.log(2)
        return p, entropy
    log_p = F.log_softmax(logits_kzyx, 0)
    p = log_p.exp()
    entropy = (log_p.mul_(p).sum(0).neg_() / np.log(len(p))).clamp_(0, 1)
    return p, entropy


def add_entropies(
    sums: MemberSums, codes_zyx: np.ndarray, entropy_zyx: np.ndarray, belongs_ck: np.ndarray, nothing: int
) -> None:
    """Adds the entropies of whole slices to the sums of each output: of the mask, of its core, on its border.

    Parameters
    ----------
    sums
        Is added to.
    codes_zyx, entropy_zyx
        Of one member.
    belongs_ck
        Whether a code belongs to an output's mask.
    nothing
        The code of background, which is not looked at.
    """
    sums.image_entropy += float(entropy_zyx.sum(dtype=np.float64))
    sums.voxels += entropy_zyx.size
    box = _box_with_rim(codes_zyx != nothing)
    if box is None:
        return
    codes = codes_zyx[box]
    entropy = entropy_zyx[box].astype(np.float64)
    outputs = belongs_ck.shape[1]
    names = ("entropy", "rim", "rim_entropy", "core", "core_entropy")
    if belongs_ck.sum() == len(belongs_ck) - 1:  # each code is a mask of its own, as of labels
        for name, values in zip(names, _entropies_of(codes, entropy, len(belongs_ck))):
            getattr(sums, name)[...] += values[:outputs]
        return
    for output in range(outputs):
        is_inside = belongs_ck[:, output][codes].astype(np.int32)
        for name, values in zip(names, _entropies_of(is_inside, entropy, 2)):
            getattr(sums, name)[output] += values[1]


def _entropies_of(
    codes: np.ndarray, entropy: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each code: entropy; sides of faces on its border, and their entropy; voxels of its core, and their entropy."""
    rim = np.zeros(number)
    rim_entropy = np.zeros(number)
    is_core = np.ones(codes.shape, bool)
    for axis in (1, 2):
        before = [slice(None)] * 3
        after = [slice(None)] * 3
        before[axis] = slice(None, -1)
        after[axis] = slice(1, None)
        first = codes[tuple(before)]
        second = codes[tuple(after)]
        is_border = first != second
        is_core[tuple(before)] &= ~is_border
        is_core[tuple(after)] &= ~is_border
        both = entropy[tuple(before)][is_border] + entropy[tuple(after)][is_border]
        for side in (first[is_border], second[is_border]):  # a face is on the borders of both
            rim += 2 * np.bincount(side, minlength=number)
            rim_entropy += np.bincount(side, both, minlength=number)
    of_code = np.bincount(codes.ravel(), entropy.ravel(), minlength=number)
    core_codes = codes[is_core]
    core = np.bincount(core_codes, minlength=number)
    core_entropy = np.bincount(core_codes, entropy[is_core], minlength=number)
    return of_code, rim, rim_entropy, core, core_entropy


def _box_with_rim(is_found_zyx: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The box around what is found, one voxel larger within slices; None where nothing is."""
    ends = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(is_found_zyx.any(others))
        if not len(places):
            return None
        rim = 0 if axis == 0 else 1
        ends.append(slice(max(0, int(places[0]) - rim), int(places[-1]) + 1 + rim))
    z, y, x = ends
    return z, y, x


def is_any_of(codes_zyx: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Where a mask of codes holds one of those wanted, bool."""
    if len(wanted) == 1:
        return codes_zyx == wanted[0]
    return np.isin(codes_zyx, wanted)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


def _on_host(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
