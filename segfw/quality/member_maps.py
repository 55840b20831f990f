"""What each network of a model finds, and how sure it is: all that predicted quality is made from, slab by slab.

Masks and maps are kept at a byte a voxel, and of probabilities only sums, so that memory does not grow with the number
of classes. A mask holds codes: the class that wins, or of regions the last one above 0, as masks are painted; which
codes belong to a structure says ``codes_of``.
"""

# K outputs, M members, N voxels, Z Y X space of the network's grid

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Block, block_of
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.slabs import Slab
from segfw.grid.winners import last_above_zero
from segfw.measurements.measure_masks import joined_box

BLOCK_VALUES = 1 << 22  # logits that are looked at together
CACHE_VALUES = 1 << 18  # of these on a processor, whose cache has room for so many and what is made of them
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


def boxes_of(codes_zyx: np.ndarray, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Block | None]:
    """The smallest block around each of some groups of codes in a mask, found in one pass; None of an absent one."""
    has_zero = any(0 in codes for codes in wanted.values())
    numbered = codes_zyx.astype(np.uint16) + np.uint16(1) if has_zero else codes_zyx
    boxes = ndimage.find_objects(numbered)
    found: dict[str, Block | None] = {}
    for name, codes in wanted.items():
        places = [code if has_zero else code - 1 for code in codes]
        own = [boxes[place] for place in places if place < len(boxes)]
        found[name] = joined_box([box for box in own if box is not None])
    return found


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
        is_on_processor = slab.channels_azyx.device.type == "cpu"
        together = min(self._block_values, CACHE_VALUES) if is_on_processor else self._block_values
        for block in _blocks(start, stop, height, width, together // self.labels.outputs):
            # Of several members the logits of a voxel lie side by side, and each pass over them would step over all.
            logits_kzyx = slab.logits(block, member).contiguous()
            place = (slice(block[0].start - start, block[0].stop - start), *block[1:])
            self._look_at_block(logits_kzyx, place, found, sums)
        if sums is not None:
            add_entropies(sums, found.codes_zyx, found.entropy_zyx, self._belongs, nothing_code(self.labels))
        return found

    def _look_at_block(self, logits_kzyx: Tensor, place: Block, found: _Found, sums: MemberSums | None) -> None:
        look = self._look_at_regions if self.labels.regions else self._look_at_labels
        codes_zyx, probability_zyx, entropy_zyx = look(logits_kzyx, sums)
        found.codes_zyx[place] = host_array(codes_zyx.to(torch.uint8 if self.labels.outputs < 256 else torch.int16))
        found.entropy_zyx[place] = host_array(entropy_zyx)
        if sums is None or self.members == 1:  # of single members it is not kept
            found.probability_zyx[place] = host_array(probability_zyx)

    def _look_at_labels(self, logits_kzyx: Tensor, sums: MemberSums | None) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, the winner's probability and the entropy (Z, Y, X) of a softmax, in as few passes as there can be.

        Probabilities are never made of all classes: the winner's is 1 over the sum of exponentials below the largest.
        """
        below_kzyx, codes_zyx = below_largest(logits_kzyx)
        exponential_kzyx = below_kzyx.exp()
        share_zyx = exponential_kzyx.sum(0).reciprocal_()  # of the winner
        spread_zyx = below_kzyx.mul_(exponential_kzyx).sum(0).mul_(share_zyx)
        entropy_zyx = (-share_zyx.log()).sub_(spread_zyx).div_(float(np.log(len(logits_kzyx)))).clamp_(0, 1)
        if sums is not None:
            self._add_labels(sums, exponential_kzyx.flatten(1), share_zyx.flatten(), codes_zyx.flatten())
        return codes_zyx, share_zyx, entropy_zyx

    def _add_labels(self, sums: MemberSums, exponential_kn: Tensor, share_n: Tensor, codes_n: Tensor) -> None:
        add = self._add_few if exponential_kn.device.type == "cpu" else self._add_all
        sums.everywhere += on_host(exponential_kn @ share_n)
        add(sums, exponential_kn, share_n, codes_n)

    def _add_all(self, sums: MemberSums, exponential_kn: Tensor, share_n: Tensor, codes_n: Tensor) -> None:
        """By operations of one size, for which a GPU is not waited for, and without the float64 that some lack."""
        low, high = DOUBTFUL
        p_kn = exponential_kn * share_n
        sums.doubtful += on_host(((p_kn > low) & (p_kn < high)).sum(1))
        is_won_kn = codes_n == torch.arange(self.labels.outputs, device=codes_n.device)[:, None]
        sums.mask += on_host(is_won_kn.sum(1))
        sums.inside += on_host(is_won_kn.float() @ share_n)

    def _add_few(self, sums: MemberSums, exponential_kn: Tensor, share_n: Tensor, codes_n: Tensor) -> None:
        """By the few voxels that are in doubt, and those that are no background, which is quicker on a processor."""
        outputs = self.labels.outputs
        low, high = DOUBTFUL
        shares_n = share_n.numpy()  # numpy finds the few in a fraction of the time that torch takes
        # Where the winner is not doubtful, no other is.
        unsure_n = np.flatnonzero(shares_n < high)
        p_kn = exponential_kn.numpy().take(unsure_n, 1) * shares_n[unsure_n]
        sums.doubtful += np.count_nonzero((p_kn > low) & (p_kn < high), axis=1)
        found_n = np.flatnonzero(codes_n.numpy() != 0)
        found_codes_n = codes_n.numpy()[found_n]
        voxels_k = np.bincount(found_codes_n, minlength=outputs)[:outputs].astype(float)
        shares_k = np.bincount(found_codes_n, shares_n[found_n], minlength=outputs)[:outputs]
        # Background by what is left of all.
        voxels_k[0] = len(codes_n) - voxels_k.sum()
        shares_k[0] = float(share_n.sum(dtype=torch.float64)) - shares_k.sum()
        sums.mask += voxels_k
        sums.inside += shares_k

    def _look_at_regions(self, logits_kzyx: Tensor, sums: MemberSums | None) -> tuple[Tensor, Tensor, Tensor]:
        p_kzyx, entropy_zyx = probabilities(logits_kzyx, is_regions=True)
        codes_zyx = last_above_zero(logits_kzyx)
        largest_zyx = p_kzyx.amax(0)
        if sums is not None:
            low, high = DOUBTFUL
            p_kn = p_kzyx.flatten(1)
            sums.everywhere += on_host(p_kn.sum(1))
            sums.doubtful += on_host(((p_kn > low) & (p_kn < high)).sum(1))
            belongs_kn = torch.from_numpy(self._belongs).to(p_kn.device)[codes_zyx.flatten().long()].T
            sums.mask += on_host(belongs_kn.sum(1))
            sums.inside += on_host((p_kn * belongs_kn).sum(1))
        # Where none wins, what is told is how sure it is that there is none.
        return codes_zyx, torch.maximum(largest_zyx, 1 - largest_zyx), entropy_zyx


def _blocks(start: int, stop: int, height: int, width: int, voxels: int) -> Iterator[Block]:
    """Blocks of slices, or of rows where a slice is more than so many voxels, that cover some slices."""
    rows = min(height, max(1, voxels // width))
    slices = max(1, voxels // (height * width))
    for z in range(start, stop, slices):
        for y in range(0, height, rows):
            yield slice(z, min(z + slices, stop)), slice(y, min(y + rows, height)), slice(0, width)


def below_largest(logits_kzyx: Tensor) -> tuple[Tensor, Tensor]:
    """Logits less the largest of each voxel, and whose this is, of equals the lowest (int32), as ``first_largest``."""
    below_kzyx = logits_kzyx - logits_kzyx.amax(0)
    count = len(below_kzyx)
    ranks = torch.arange(count, 0, -1, dtype=torch.float32, device=below_kzyx.device).view(-1, 1, 1, 1)
    is_largest = torch.empty(below_kzyx.shape, dtype=torch.float32, device=below_kzyx.device)
    torch.eq(below_kzyx, 0, out=is_largest)  # as floats, for which the comparison is vectorised
    return below_kzyx, (count - is_largest.mul_(ranks).amax(0)).int()


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
    entropy = entropy_zyx[box]
    outputs = belongs_ck.shape[1]
    names = ("entropy", "rim", "rim_entropy", "core", "core_entropy")
    if belongs_ck.sum() == len(belongs_ck) - 1:  # each code is a mask of its own, as of labels
        for name, values in zip(names, _entropies_of(codes, entropy, len(belongs_ck), nothing)):
            getattr(sums, name)[...] += values[:outputs]
        return
    for output in range(outputs):
        is_inside = belongs_ck[:, output][codes].astype(np.int32)
        for name, values in zip(names, _entropies_of(is_inside, entropy, 2, 0)):
            getattr(sums, name)[output] += values[1]


def _entropies_of(
    codes: np.ndarray, entropy: np.ndarray, number: int, nothing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each code: entropy; sides of faces on its border, and their entropy; voxels of its core, and their entropy.

    Of ``nothing`` there are borders alone.
    """
    rim = np.zeros(number)
    rim_entropy = np.zeros(number)
    width = codes.shape[2]
    code_n = codes.ravel()
    entropy_n = entropy.ravel()
    is_core_n = np.ones(len(code_n), bool)
    differs_below = np.zeros(codes.shape, bool)
    np.not_equal(codes[:, :-1], codes[:, 1:], out=differs_below[:, :-1])
    differs_behind = np.zeros(codes.shape, bool)
    np.not_equal(codes[:, :, :-1], codes[:, :, 1:], out=differs_behind[:, :, :-1])
    for differs, step in ((differs_below, width), (differs_behind, 1)):
        first = np.flatnonzero(differs)  # of the few faces on borders, the voxel before and the one behind
        second = first + step
        is_core_n[first] = False
        is_core_n[second] = False
        both = entropy_n[first] + entropy_n[second]
        for side in (code_n[first], code_n[second]):  # a face is on the borders of both
            rim += 2 * np.bincount(side, minlength=number)
            rim_entropy += np.bincount(side, both, minlength=number)
    places = np.flatnonzero(code_n != nothing)  # few
    found = code_n[places]
    entropy_there = entropy_n[places]
    of_code = np.bincount(found, entropy_there, minlength=number)
    is_core_there = is_core_n[places]
    core_codes = found[is_core_there]
    core = np.bincount(core_codes, minlength=number)
    core_entropy = np.bincount(core_codes, entropy_there[is_core_there], minlength=number)
    return of_code, rim, rim_entropy, core, core_entropy


def _box_with_rim(is_found_zyx: np.ndarray) -> Block | None:
    """The box around what is found, one voxel larger within slices; None where nothing is."""
    box = block_of(is_found_zyx)
    if box is None:
        return None
    z, y, x = box
    return z, _larger(y), _larger(x)


def _larger(part: slice) -> slice:
    return slice(max(0, part.start - 1), part.stop + 1)


def is_any_of(codes_zyx: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Where a mask of codes holds one of those wanted, bool."""
    if len(wanted) == 1:
        return codes_zyx == wanted[0]
    return np.isin(codes_zyx, wanted)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


def on_host(values: Tensor) -> np.ndarray:
    """Sums, float64."""
    return values.cpu().double().numpy()


def host_array(values_zyx: Tensor) -> np.ndarray:
    """Values of voxels, as they are."""
    return values_zyx.cpu().numpy()
