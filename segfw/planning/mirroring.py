"""Mirroring where labels are left and right of each other: which change places, and which axes are not mirrored.

The published recipe mirrors images and masks along every axis, which makes a left kidney of a right one and still calls
it right. Three rules repair that, the first that applies:

1. Two labels that are named as the left and the right of one thing, and whose places and sizes in the cases do not
   speak against it, change places where an image is mirrored from left to right: along x, or along the axis on which
   they lie apart in nearly all cases, where files say wrongly how they are oriented. Of two that no case has both of,
   as where cases are annotated in part, the axis is told by how they lie to the middle of their images.
2. Where a label is called left or right and the first rule does not hold (no counterpart, chambers of the heart, sizes
   or places that differ, regions without a mirror image), that axis is not mirrored: losing it costs little, wrong
   labels cost much.
3. Labels whose names do not tell them apart ('label_3', 'label_4'), but that lie and measure like mirror images, are
   not mirrored either: nothing says that they are a pair, so they are not exchanged.

A structure with a name of its own that lies on one side, such as the liver, is as recognisable in the mirror.

N cases, K classes, A axes (z, y, x in canonical orientation, where x runs from the patient's left to the right).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from segfw.dataset.labels import LabelSet
from segfw.dataset.sides import is_of_heart, pairs_by_name
from segfw.images.geometry import Shape
from segfw.planning.case_measure import CaseMeasure
from segfw.planning.pair_relations import Pair, Relation, places_of, relation_across_cases, relations_of
from segfw.planning.patch_shape import is_turned_round

X_AXIS = 2
FEWEST_CASES = 5  # with both labels: below, places and sizes cannot speak against names
FEWEST_SILENT_CASES = 8  # nor, without names, for a pair
MOST_UNEQUAL = 2.0  # volumes of a named pair: more for the lobes of a liver, less for lungs
MOST_UNEQUAL_SILENT = 1.3
APART_EDGES = 2.0  # edges of a cube of the label's volume: neighbours in a row, such as vertebrae, lie closer
SHOWN = 3  # pairs or reasons that a sentence names


@dataclass(frozen=True, kw_only=True)
class Mirroring:
    """Pairs of classes that are exchanged along ``axis``, and axes that are not mirrored; axes are canonical."""

    axis: int = X_AXIS
    pairs: tuple[Pair, ...] = ()
    fixed_axes: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()


def find_mirroring(labels: LabelSet, cases: Sequence[CaseMeasure], *, as_published: bool = False) -> Mirroring:
    """How images with these labels may be mirrored. As published nothing is changed, which is said if it is wrong."""
    parts = {name: frozenset((index,)) for name, index in labels.foreground.items()}
    parts |= {name: frozenset(classes) for name, classes in labels.structures.items()}
    named, alone = pairs_by_name(list(parts))
    differing = [_single(parts[left] - parts[right], parts[right] - parts[left]) for left, right in named]
    pairs = [pair for pair in dict.fromkeys(differing) if pair is not None]
    places = places_of(labels, cases)
    relations = relations_of(labels, places, pairs)
    seen_together = {pair for pair in pairs if pair in relations and relations[pair].cases >= FEWEST_CASES}
    axis = _common_axis(
        [relations[pair] if pair in seen_together else relation_across_cases(places, pair) for pair in pairs]
    )
    silent_axis, silent = _silent_pairs(relations, set(chain(*pairs)))
    if as_published:
        return _published(labels, pairs or silent, axis if pairs else silent_axis, [*map(" and ".join, named), *alone])

    # What forbids an axis: the sentence, and which axes
    reasons = [_Obstacle({axis}, f"{name} has no counterpart on the other side") for name in alone]
    for left, right in named:
        if is_of_heart(left):
            reasons.append(_Obstacle({axis}, f"{left} and {right} are of the heart, whose sides do not look alike"))
    for pair in pairs:
        against = _speaks_against(relations.get(pair), axis)
        if against:
            reasons.append(_Obstacle({axis, relations[pair].axis}, f"{_listed([pair], labels)} {against}"))
    if silent:
        sentence = f"{_listed(silent, labels)} lie and measure like left and right of one thing, but are not named so"
        reasons.append(_Obstacle({silent_axis}, sentence))
    unmatched = _without_image(labels, pairs, {parts[left]: parts[right] for left, right in named})
    if unmatched:
        reasons.append(_Obstacle({axis}, f"{unmatched} has no mirror image among the labels and regions"))
    if reasons:
        return _not_mirrored(reasons)

    # What is exchanged
    if not pairs:
        return Mirroring()
    sentence = f"Mirroring along {'zyx'[axis]} exchanges {_listed(pairs, labels)}."
    if axis != X_AXIS:
        sentence += f" They lie apart along {'zyx'[axis]}, so the files do not say how they are oriented."
    return Mirroring(axis=axis, pairs=tuple(pairs), reasons=(sentence,))


def side_axes(mirroring: Mirroring) -> frozenset[int]:
    """Canonical axes from one end of which to the other left becomes right, where the labels know sides.

    In a slice across such an axis the two sides look alike, so that a network that sees slices cannot tell them apart.
    """
    if mirroring.pairs:
        return frozenset((mirroring.axis,))
    return frozenset(mirroring.fixed_axes)


class _Obstacle(NamedTuple):
    """Why images are not mirrored along some axes."""

    axes: set[int]
    sentence: str


def _not_mirrored(obstacles: Sequence[_Obstacle]) -> Mirroring:
    fixed = tuple(sorted(set[int]().union(*(obstacle.axes for obstacle in obstacles))))
    why = "; ".join(obstacle.sentence for obstacle in obstacles[:SHOWN])
    if len(obstacles) > SHOWN:
        why += f"; and {len(obstacles) - SHOWN} reasons more"
    where = " and ".join("zyx"[axis] for axis in fixed)
    return Mirroring(axis=fixed[-1], fixed_axes=fixed, reasons=(f"Images are not mirrored along {where}: {why}.",))


def _common_axis(relations: Sequence[Relation | None]) -> int:
    """The axis along which most named pairs lie apart like mirror images; x where others are not more."""
    axes = []
    for relation in relations:
        if relation and relation.cases >= FEWEST_CASES and relation.agrees and relation.is_like_mirrored:
            axes.append(relation.axis)
    return max((X_AXIS, *set(axes)), key=axes.count)


def _published(labels: LabelSet, pairs: Sequence[Pair], axis: int, sided: Sequence[str]) -> Mirroring:
    if not (pairs or sided):
        return Mirroring()
    what = _listed(pairs, labels) if pairs else sided[0]
    sentence = f"As published, mirroring along {'zyx'[axis]} leaves labels as they are, those of {what} too."
    return Mirroring(reasons=(sentence,))


def _listed(pairs: Sequence[Pair], labels: LabelSet) -> str:
    """'kidney_left and kidney_right, lung_left and lung_right, and 4 pairs more'."""
    shown = [" and ".join(labels.names[index] for index in pair) for pair in pairs[:SHOWN]]
    more = [f"and {len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else []
    return ", ".join(shown + more)


def _single(left: frozenset[int], right: frozenset[int]) -> Pair | None:
    """The two classes, if what is only left and what is only right are one each."""
    return (min(left), min(right)) if len(left) == len(right) == 1 else None


def _speaks_against(relation: Relation | None, axis: int) -> str:
    """Why two labels that are named left and right can be no mirror images along ``axis``; '' if nothing says so."""
    if relation is None or relation.cases < FEWEST_CASES:
        return ""
    if not relation.agrees:
        return "lie now on one side of each other and now on the other"
    if relation.axis != axis:
        return f"lie apart along {'zyx'[relation.axis]} rather than {'zyx'[axis]}"
    if relation.times_larger > MOST_UNEQUAL:
        return f"differ in size by {relation.times_larger:.1f} times"
    return ""


def _silent_pairs(relations: Mapping[Pair, Relation], named: set[int]) -> tuple[int, list[Pair]]:
    """Axis and pairs that lie and measure like left and right though no name says so.

    Left and right lie along x. Along another axis, where files say wrongly how they are oriented, a pair must also be
    farther apart than neighbours in a row are, and neither of it be like the mirror image of a third.
    """
    alike: dict[int, list[Pair]] = {axis: [] for axis in range(3)}
    for pair, relation in relations.items():
        is_alike = relation.agrees and relation.is_like_mirrored and relation.times_larger <= MOST_UNEQUAL_SILENT
        if is_alike and relation.cases >= FEWEST_SILENT_CASES and named.isdisjoint(pair):
            alike[relation.axis].append(pair)
    if alike[X_AXIS]:
        return X_AXIS, alike[X_AXIS]
    for axis in (1, 0):
        apart = [pair for pair in alike[axis] if relations[pair].apart_edges >= APART_EDGES]
        times_paired = Counter(chain(*apart))
        if apart and max(times_paired.values()) == 1:
            return axis, apart
    return X_AXIS, []


def _without_image(labels: LabelSet, pairs: Sequence[Pair], named: Mapping[frozenset, frozenset]) -> str:
    """What the exchange makes no other label or region of, or not the one it is named the counterpart of."""
    times_paired = Counter(chain(*pairs))
    paired_twice = sorted(index for index, times in times_paired.items() if times > 1)
    if paired_twice:
        return labels.names[paired_twice[0]]
    image = dict(zip(range(len(labels.values)), class_order(pairs, len(labels.values))))
    regions = {frozenset(classes): name for name, classes in labels.structures.items()}
    for classes, name in regions.items():
        mirrored = frozenset(image[index] for index in classes)
        if mirrored not in regions or mirrored != named.get(classes, mirrored):
            return name
    return ""


class MirrorRules(NamedTuple):
    """How the patches of a configuration are mirrored, in the network's axis order."""

    axes: tuple[int, ...]
    swapped_labels: tuple[tuple[int, int, int], ...]  # (axis, class, class)
    reasons: tuple[str, ...]


def mirror_rules(
    mirroring: Mirroring, axis_order: tuple[int, int, int], patch_size: Shape, *, is_2d: bool
) -> MirrorRules:
    """How a configuration's patches are mirrored.

    Slices are not mirrored across their plane. Where patches are turned by up to half a turn in their plane and
    left and right lie in it, the other axis of the plane is not mirrored: both together mirror left and right.
    """
    side = axis_order.index(mirroring.axis)
    axes = [axis for axis in range(3) if axis_order[axis] not in mirroring.fixed_axes]
    if is_2d:
        axes = [axis for axis in axes if axis > 0]
    reasons = []
    across = 3 - side  # the other axis of the plane, where left and right lie in it
    knows_sides = bool(mirroring.pairs or mirroring.fixed_axes)
    if knows_sides and side > 0 and across in axes and is_turned_round(patch_size):
        reasons.append(
            f"Not mirrored along {'zyx'[axis_order[across]]}: with the half turns that the augmentation makes in this "
            f"plane that would mirror along {'zyx'[axis_order[side]]}."
        )
        axes.remove(across)
    swapped = tuple((side, *pair) for pair in mirroring.pairs) if side in axes else ()
    return MirrorRules(axes=tuple(axes), swapped_labels=swapped, reasons=tuple(reasons))


def class_order(pairs: Sequence[Pair], classes: int) -> tuple[int, ...]:
    """The class that each class becomes where the pairs are exchanged."""
    order = list(range(classes))
    for first, second in pairs:
        order[first], order[second] = second, first
    return tuple(order)


def class_orders(swapped: Mapping[int, Sequence[Pair]], classes: int) -> dict[int, tuple[int, ...]]:
    """By mirrored axis: the class that each class of a mask becomes. ``swapped`` is a configuration's swapped_pairs."""
    return {axis: class_order(pairs, classes) for axis, pairs in swapped.items()}


def output_orders(swapped: Mapping[int, Sequence[Pair]], labels: LabelSet) -> dict[int, tuple[int, ...]]:
    """By mirrored axis: the output channel of a mirrored image that belongs in each place of the image's own."""
    orders = class_orders(swapped, len(labels.values))
    if not labels.regions:
        return orders
    regions = [frozenset(classes) for classes in labels.region_classes]
    return {
        axis: tuple(regions.index(frozenset(order[index] for index in region)) for region in regions)
        for axis, order in orders.items()
    }


def input_orders(
    swapped: Mapping[int, Sequence[Pair]], image_channels: int, in_channels: int
) -> dict[int, tuple[int, ...]]:
    """By mirrored axis: the input channel that belongs in each place of a mirrored input.

    Only the second stage of a cascade has any: after the image's channels it sees one for each class of the first stage
    but the background.
    """
    classes = in_channels - image_channels + 1
    if classes == 1:
        return {}
    return {
        axis: (*range(image_channels), *(image_channels + index - 1 for index in order[1:]))
        for axis, order in class_orders(swapped, classes).items()
    }
