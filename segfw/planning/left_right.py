"""Left and right: in the names of structures, and where a case has them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from segfw.dataset.cases import LARGEST_TABLE, LabelSet
from segfw.images.geometry import Volume, to_canonical

# Words that alone say a side, and abbreviations that do so only where the other side's name is there too: 'L' is also
# a lumbar vertebra.
WORDS = (("left", "right"), ("sinister", "dexter"), ("sinistra", "dextra"), ("links", "rechts"), ("gauche", "droite"))
ABBREVIATIONS = (("l", "r"), ("lt", "rt"), ("lh", "rh"), ("sin", "dex"), ("sin", "dx"), ("gauche", "droit"))
FEWEST_GLUED = 4  # letters after a glued 'l' or 'r', as in 'lkidney'; 'LV' and 'RV' are names of their own
# Left and right of the heart name chambers and vessels that are no mirror images of each other.
HEART = ("heart", "cardi", "atri", "ventric", "coronar", "auric", "append")
BRAIN = ("lateral", "lat", "brain", "horn", "cereb")  # whose ventricles are pairs


def words_of(name: str) -> tuple[str, ...]:
    """'ParotidL' and 'parotid (L)' -> ('parotid', 'l')."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    return tuple(word for word in re.split(r"[\W_]+", apart.lower()) if word)


def pairs_by_name(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(Left, right) names that differ only by the side that they say, and names that say one without a counterpart."""
    by_words = {words_of(name): name for name in names}
    pairs: dict[str, str] = {}
    for words, name in by_words.items():
        for other in _mirrored(words):
            if other in by_words and by_words[other] not in pairs.values():
                pairs.setdefault(name, by_words[other])
    paired = {*pairs.keys(), *pairs.values()}
    return list(pairs.items()), [name for name in names if name not in paired and _says_side(words_of(name))]


def _mirrored(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What the right counterpart of a left structure may be called; nothing for what is not called left."""
    found = []
    for left, right in (*WORDS, *ABBREVIATIONS):
        if left in words and right not in words:
            found.append(tuple(right if word == left else word for word in words))
        for index, word in enumerate(words):
            for glued in _glued(word, left, right):
                found.append((*words[:index], glued, *words[index + 1 :]))
    return found


def _glued(word: str, left: str, right: str) -> list[str]:
    """'lkidney' -> 'rkidney', 'kidneyleft' -> 'kidneyright', 'al' (anterior left) -> 'ar'."""
    found = []
    if left in ("l", "left") and word.startswith(left) and len(word) - len(left) >= FEWEST_GLUED:
        found.append(right + word[len(left) :])
    if left in ("l", "left") and word.endswith(left) and len(word) > len(left):
        found.append(word[: -len(left)] + right)
    return found


def _says_side(words: tuple[str, ...]) -> bool:
    """True if the words name one side of the body, and not both."""
    says_left, says_right = (
        any(
            word == pair[side] or (word.startswith(WORDS[0][side]) and len(word) >= len(WORDS[0][side]) + FEWEST_GLUED)
            for pair in WORDS
            for word in words
        )
        for side in (0, 1)
    )
    return says_left != says_right


def is_of_heart(name: str) -> bool:
    """True for chambers and vessels of the heart, of which left and right do not look alike."""
    words = words_of(name)

    def has(stems: Sequence[str]) -> bool:
        return any(word.startswith(stem) for word in words for stem in stems)

    return has(HEART) and not has(BRAIN)


def stem_of(name: str) -> tuple[str, ...]:
    """The name without numbers and single letters: names of one stem do not say what tells them apart."""
    words = (re.sub(r"\d+", "", word) for word in words_of(name))
    return tuple(word for word in words if len(word) > 1)


def may_be_paired(labels: LabelSet) -> bool:
    """True if some names of labels or regions say sides, or do not say what tells them apart."""
    names = list(dict.fromkeys((*labels.foreground, *labels.structures)))
    pairs, alone = pairs_by_name(names)
    return bool(pairs or alone) or len({stem_of(name) for name in names}) < len(names)


def label_centroids_mm(mask: Volume, labels: LabelSet | None) -> dict[str, tuple[float, float, float]]:
    """Centroid (z, y, x) of each value of a mask but 0, in canonical orientation from its first voxel on.

    Nothing if no two of ``labels`` can be left and right of one thing; where labels are not known (None) they can.
    """
    if labels is not None and not may_be_paired(labels):
        return {}
    canonical = to_canonical(mask)
    values, spacing_mm = canonical.array[0], canonical.geometry.spacing_mm
    if values.min() < 0 or values.max() >= LARGEST_TABLE:  # names alone must do then
        return {}
    found = {}
    for value, box in enumerate(ndimage.find_objects(values), start=1):
        if box is not None:
            inside = values[box] == value
            # By sums along axes, as a list of voxels may be huge.
            counts = [inside.sum(tuple({0, 1, 2} - {axis})) for axis in range(3)]
            middle = [part.start + np.average(np.arange(len(along)), weights=along) for part, along in zip(box, counts)]
            found[str(value)] = tuple(float(place * mm) for place, mm in zip(middle, spacing_mm))
    return found
