"""Which structure a doubtful voxel might also belong to, and how likely: kept of those few voxels alone.

Of most voxels the winner is certain. Where it is not, what comes second matters: with these two it is exact which
voxels have a structure with a probability above 0.35, and how much of one is to be expected outside of its mask.
"""

# K outputs, N doubtful voxels, Z Y X space of the network's grid

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from segfw.dataset.labels import LabelSet
from segfw.grid.slabs import Slab
from segfw.quality.member_maps import (
    DOUBTFUL,
    MemberMaps,
    codes_of,
    host_array,
    is_any_of,
    nothing_code,
    output_of,
)

MOST_VALUES = 1 << 22  # logits that are looked at together
# Of regions a member may differ in another one than the most doubtful: as of the last certain voxel.
AS_GOOD_AS_CERTAIN = DOUBTFUL[1]


@dataclass(frozen=True, kw_only=True)
class StructureDoubt:
    """Voxels of which it is in doubt whether they belong to one structure.

    ``index_n`` are flat indices into the network's grid, ascending; ``probability_n`` is that of the structure there by
    the mean of all members, ``is_inside_n`` whether the mean's mask has it, ``differing_n`` the share of members that
    say otherwise than the mean.
    """

    index_n: np.ndarray
    probability_n: np.ndarray
    is_inside_n: np.ndarray
    differing_n: np.ndarray

    @property
    def wrong_n(self) -> np.ndarray:
        """Share of each voxel that is expected to be wrong."""
        return np.where(self.is_inside_n, 1 - self.probability_n, self.probability_n)


class DoubtfulVoxels:
    """A sink beside ``MemberMaps`` that must be shown every slab after it.

    Of labels it keeps what comes second wherever the winner has a probability below 0.8; of regions, wherever one of
    them is between 0.2 and 0.8, the one that is nearest to a half. That is 11 bytes of each such voxel, whatever the
    number of classes.
    """

    def __init__(self, maps: MemberMaps, *, most_values: int = MOST_VALUES) -> None:
        self._maps = maps
        self._most_values = most_values
        self._index: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def add(self, slab: Slab) -> None:
        """Looks at the doubtful voxels of a slab."""
        maps = self._maps
        _, height, width = maps.record.shape
        if maps.labels.regions:
            is_doubtful = maps.entropy[slab.start : slab.stop] > round(255 * _entropy_of_doubt())
        else:
            is_doubtful = maps.probability[slab.start : slab.stop] < round(255 * DOUBTFUL[1])
        index = np.flatnonzero(is_doubtful) + slab.start * height * width
        step = max(1, self._most_values // maps.labels.outputs)
        for start in range(0, len(index), step):
            self._look(slab, index[start : start + step])

    def _look(self, slab: Slab, index_n: np.ndarray) -> None:
        maps = self._maps
        places = np.stack(np.unravel_index(index_n, maps.record.shape), axis=1)
        logits_kn = slab.logits_at(torch.from_numpy(places))
        if maps.labels.regions:
            p_kn = logits_kn.sigmoid()
            output_n = (p_kn - 0.5).abs().argmin(0)
        else:
            p_kn = logits_kn.softmax(0)
            best_2n = p_kn.topk(2, 0).indices
            won_n = torch.from_numpy(maps.mean_classes.ravel()[index_n].astype(np.int64)).to(best_2n.device)
            output_n = torch.where(best_2n[0] == won_n, best_2n[1], best_2n[0])  # of equals another may have won
        p_n = p_kn.gather(0, output_n[None])[0]
        self._index.append(index_n)
        self._outputs.append(host_array(output_n.to(torch.int16)).view(np.uint16))
        self._probabilities.append(host_array((p_n * 255).round().byte()))

    def by_structure(self) -> dict[str, StructureDoubt]:
        """The doubtful voxels of every structure, those where members differ among them; after the last slab."""
        maps = self._maps
        labels = maps.labels
        outputs = labels.outputs
        index = np.concatenate([*self._index, np.empty(0, np.int64)]).astype(np.int64)
        output = np.concatenate([*self._outputs, np.empty(0, np.uint16)]).astype(np.int64)
        probability = np.concatenate([*self._probabilities, np.empty(0, np.uint8)]).astype(np.float32) / 255
        doubtful = _doubtful_regions if labels.regions else _doubtful_labels
        differing = _differing_regions if labels.regions else _differing_labels
        keys, p = doubtful(maps, index, output, probability)
        member_keys, member_p = differing(maps)
        # Of a voxel that was found twice the first counts, which is known exactly.
        every_key, first, place = np.unique(np.concatenate((keys, member_keys)), return_index=True, return_inverse=True)
        every_p = np.concatenate((p, member_p))[first]
        votes = np.bincount(place[len(keys) :], minlength=len(every_key)) / max(1, maps.members)
        found = {}
        belongs = codes_of(labels)
        for name, number in output_of(labels).items():
            is_its = every_key % outputs == number
            own = every_key[is_its] // outputs
            found[name] = StructureDoubt(
                index_n=own,
                probability_n=every_p[is_its],
                is_inside_n=is_any_of(maps.mean_classes.ravel()[own], belongs[name]),
                differing_n=votes[is_its],
            )
        return found


def _entropy_of_doubt() -> float:
    """Entropy of a chance of 0.8, where an even one has 1."""
    high = DOUBTFUL[1]
    return float(-(high * np.log2(high) + (1 - high) * np.log2(1 - high)))


# Keys are a voxel's index times the number of outputs, and the output; with each the output's probability there.


def _doubtful_labels(
    maps: MemberMaps, index: np.ndarray, second: np.ndarray, second_p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    outputs = maps.labels.outputs
    won = maps.mean_classes.ravel()[index]
    won_p = maps.probability.ravel()[index].astype(np.float32) / 255
    is_likely = second_p >= DOUBTFUL[0]
    keys = np.concatenate((index * outputs + won, (index * outputs + second)[is_likely]))
    return keys, np.concatenate((won_p, second_p[is_likely]))


def _differing_labels(maps: MemberMaps) -> tuple[np.ndarray, np.ndarray]:
    outputs = maps.labels.outputs
    codes = maps.mean_classes.ravel()
    keys = [np.empty(0, np.int64)]
    values = [np.empty(0, np.float32)]
    for of_member in maps.classes:
        differs = np.flatnonzero(of_member.ravel() != codes)
        inside = maps.probability.ravel()[differs].astype(np.float32) / np.float32(255)
        keys += [differs * outputs + codes[differs], differs * outputs + of_member.ravel()[differs]]
        # What another one says is at most as likely as all that did not win.
        values += [inside, np.float32(1) - inside]
    return np.concatenate(keys), np.concatenate(values)


def _doubtful_regions(
    maps: MemberMaps, index: np.ndarray, nearest: np.ndarray, nearest_p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return index * maps.labels.outputs + nearest, nearest_p


def _differing_regions(maps: MemberMaps) -> tuple[np.ndarray, np.ndarray]:
    labels = maps.labels
    outputs = labels.outputs
    codes = maps.mean_classes.ravel()
    belongs = _belonging(labels)
    keys = [np.empty(0, np.int64)]
    values = [np.empty(0, np.float32)]
    for of_member in maps.classes:
        differs = np.flatnonzero(of_member.ravel() != codes)
        by_mean = belongs[codes[differs]]
        row, output = np.nonzero(by_mean != belongs[of_member.ravel()[differs]])
        keys.append(differs[row] * outputs + output)
        is_inside = by_mean[row, output]
        values.append(np.float32(1 - AS_GOOD_AS_CERTAIN) + np.float32(2 * AS_GOOD_AS_CERTAIN - 1) * is_inside)
    return np.concatenate(keys), np.concatenate(values)


def _belonging(labels: LabelSet) -> np.ndarray:
    """Whether a code belongs to an output's structure, (codes, K)."""
    belongs = np.zeros((nothing_code(labels) + 1, labels.outputs), bool)
    for name, codes in codes_of(labels).items():
        belongs[list(codes), output_of(labels)[name]] = True
    return belongs
