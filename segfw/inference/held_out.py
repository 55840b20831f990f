"""What every trained configuration, and every pair of them, finds in cases that it did not see; and what of it to drop.

``WORK/selection/CONFIGURATION/CASE.b2nd`` are probabilities by the fold that held the case out, and
``WORK/selection/scores/CASE.json`` the counts of all candidates. What is there and made from the same weights is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
from scipy import ndimage

from segfw.base.parallel import Outcome, progress
from segfw.base.records import Record, UserError
from segfw.dataset.cases import Case, LabelSet
from segfw.dataset.verify import as_integers
from segfw.evaluation.confusion import confusion, label_counts
from segfw.grid.store import read_case
from segfw.images.formats import read_mask, size_and_change
from segfw.images.geometry import Geometry, Volume, stored_like
from segfw.inference.averaging import merged_each
from segfw.inference.output_folder import sources_of
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import ENDING, ProbabilityInfo, ProbabilityWriter, read_probabilities
from segfw.model.load import WEIGHTS_FILE, fold_folder
from segfw.model.postprocess import KeepLargest, Postprocessing, joint_box, outside_largest, possible_steps
from segfw.planning.plan import Plan

FOLDER = "selection"
SEPARATOR = " + "  # between the names of a pair
ROUNDING = 1e-6  # of a mean Dice

Counts = tuple[int, int, int]  # voxels of a structure: in both masks, predicted only, reference only


class CaseCounts(Record):
    """How all candidates agree with one case's reference, by candidate and structure, and what that was made from."""

    made_from: str
    counts: dict[str, dict[str, Counts]]


class Trial(Record):
    """One step of postprocessing that was tried: mean Dice of all structures before and after, and whether it stays."""

    name: str
    before: float | None
    after: float | None
    is_kept: bool


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One validation case of one configuration, and the fold that did not see it.

    ``model`` is a digest of what its probabilities are made from: that fold's network, and the image's files.
    """

    case: Case
    configuration: str
    fold: str
    model: str

    @staticmethod
    def of(case: Case, configuration: str, fold: str, network: str) -> HeldOut:
        """By the digest of the fold's network, and the image's files as they are now."""
        model = hashlib.sha256(f"{network}{sources_of(case)}".encode()).hexdigest()
        return HeldOut(case=case, configuration=configuration, fold=fold, model=model)

    def path(self, work: Path) -> Path:
        return work / FOLDER / self.configuration / f"{self.case.id}{ENDING}"

    def is_there(self, work: Path) -> bool:
        """Whether the case's probabilities are stored, whole, by the same network of the same image."""
        try:
            return read_probabilities(self.path(work)).info.model == self.model
        except UserError:
            return False


def model_digest(work: Path, plan: Plan, configuration: str, fold: str, options: str) -> str:
    """Of one fold's weights, the first stage's of a cascade included, and of how it predicts."""
    digest = hashlib.sha256(options.encode())
    name: str | None = configuration
    while name is not None:
        digest.update((fold_folder(work, name, fold) / WEIGHTS_FILE).read_bytes())
        name = plan.configuration(name).previous_stage
    return digest.hexdigest()


def predict_held_out(
    work: Path, waiting: Sequence[HeldOut], predictor_of: Callable[[str, str], Predictor]
) -> list[Outcome]:
    """Stores the probabilities of all ``waiting`` cases and returns the failures, which do not stop the others.

    ``predictor_of`` makes the predictor of a configuration and fold.
    """
    failures = []
    groups: dict[tuple[str, str], list[HeldOut]] = {}
    for item in waiting:
        groups.setdefault((item.configuration, item.fold), []).append(item)
    with progress("predicting", total=len(waiting)) as bar:
        for (configuration, fold), items in sorted(groups.items()):
            predictor = predictor_of(configuration, fold)
            for item in items:
                try:
                    volume, _ = read_case(item.case.model_copy(update={"label": None}))
                    prepared = predictor.prepare(volume)
                    info = ProbabilityInfo(
                        configuration=configuration,
                        folds=(fold,),
                        model=item.model,
                        labels=predictor.plan.labels,
                        record=prepared.record,
                    )
                    with ProbabilityWriter(item.path(work), info) as writer:
                        for slab in predictor.slabs(prepared):
                            writer.add(slab)
                        writer.finish()
                except Exception as error:  # one bad case must not cost the user the others
                    failures.append(Outcome(item=item.case.id, error=error))
                bar.update()
    return failures


def count_case(work: Path, case: Case, items: Sequence[HeldOut], candidates: Sequence[tuple[str, ...]]) -> CaseCounts:
    """Counts of all candidates in one case, of which each configuration is restored only once.

    Kept from an earlier call if nothing that they were made from has changed. UserError if probabilities are of another
    network or image than ``items`` say.
    """
    path = work / FOLDER / "scores" / f"{case.id}.json"
    sources = (*((item.configuration, item.model) for item in items), *candidates, *size_and_change(case.label))
    made_from = hashlib.sha256(f"{sources}{case.label_map}".encode()).hexdigest()
    try:
        kept = CaseCounts.load(path)
        if kept.made_from == made_from:
            return kept
    except UserError:  # not there, or of another version
        pass
    opened = {}
    for item in items:
        opened[item.configuration] = one = read_probabilities(item.path(work))
        if one.info.model != item.model:  # counts of it would be kept under a digest that is not theirs
            raise UserError(f"{one.path}: is of other weights or of another image; predict it again with segfw select")
    names, info = list(opened), next(iter(opened.values())).info
    reference = reference_classes(case, info.labels, info.record.original)
    mixtures = [{names.index(name): 1.0 for name in candidate} for candidate in candidates]
    counts = {}
    for candidate, classes in zip(candidates, merged_each(list(opened.values()), mixtures)):
        joint = joint_counts(reference, classes, info.labels)
        counts[SEPARATOR.join(candidate)] = {
            name: tuple(label_counts(joint, members)) for name, members in info.labels.structures.items()
        }
    result = CaseCounts(made_from=made_from, counts=counts)
    result.save(path)
    return result


def masks_of(
    work: Path, items: Sequence[HeldOut], candidate: tuple[str, ...], labels: LabelSet
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reference and classes (Z, Y, X) of every case by one candidate, case after case."""
    by_case: dict[str, list[HeldOut]] = {}
    for item in items:
        if item.configuration in candidate:
            by_case.setdefault(item.case.id, []).append(item)
    for chosen in progress("postprocessing", list(by_case.values())):
        opened = [read_probabilities(item.path(work)) for item in chosen]
        classes = merged_each(opened, [dict.fromkeys(range(len(opened)), 1.0)])[0]
        yield reference_classes(chosen[0].case, labels, opened[0].info.record.original), classes


def reference_classes(case: Case, labels: LabelSet, geometry: Geometry) -> np.ndarray:
    """The case's reference (Z, Y, X) as classes, stored in the order of its image."""
    image = Volume(array=np.broadcast_to(np.uint8(0), (1, *geometry.shape)), geometry=geometry)
    mask = stored_like(read_mask(case.label), image)
    return labels.to_classes(as_integers(mask.array), case.label_map)[0]


def joint_counts(reference_zyx: np.ndarray, classes_zyx: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Voxels of every pair of classes (K, K), reference in rows; those of the ignore label count nowhere."""
    joint = confusion(reference_zyx, classes_zyx, labels.classes)
    if labels.ignored_class is not None:
        joint[labels.ignored_class] = 0
    return joint


def dice(counts: Sequence[int]) -> float | None:
    """Dice of (both, predicted only, reference only); None where both masks are empty."""
    tp, fp, fn = counts
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that exist; None if none does."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def find_postprocessing(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], labels: LabelSet
) -> tuple[Postprocessing, list[Trial], dict[str, float | None]]:
    """Of which structures to keep only the largest component, what was tried, and the mean Dice of each structure then.

    As published: first of all foreground together, then of each structure, each on top of what was kept before. A step
    stays if no structure's mean Dice falls and some structure's rises. Each pair (reference, classes) is taken once and
    held, cropped and compressed; a step then reads only the box of its own structure and moves the voxels it removes
    from one column of the joint histogram to another.
    """
    held = [_Held(reference, classes, labels) for reference, classes in pairs]
    current = _mean_dice([case.joint for case in held], labels)
    steps, trials = [], []
    for step in possible_steps(labels):
        # What it removes is found anew where it stays: held of all cases, those boxes of voxels could be large.
        found = _mean_dice([case.without(case.removal(step)) for case in held], labels)
        changes = [found[name] - current[name] for name in found if found[name] is not None]
        is_kept = min(changes, default=0) >= -ROUNDING and max(changes, default=0) > ROUNDING
        before, after = mean(current.values()), mean(found.values())
        trials.append(Trial(name=step.name, before=before, after=after, is_kept=is_kept))
        if is_kept:
            steps.append(step)
            current = found
            for case in held:
                case.remove(case.removal(step))
    return Postprocessing(steps=tuple(steps)), trials, current


def _mean_dice(joints: Sequence[np.ndarray], labels: LabelSet) -> dict[str, float | None]:
    return {
        name: mean(dice(label_counts(joint, members)) for joint in joints)
        for name, members in labels.structures.items()
    }


Removal = tuple[tuple[slice, ...], np.ndarray, np.ndarray]  # box, voxels in it, and their joint histogram


class _Held:
    """One case in memory: both masks compressed and cropped to what was predicted, and their joint histogram."""

    def __init__(self, reference_zyx: np.ndarray, classes_zyx: np.ndarray, labels: LabelSet) -> None:
        self.joint, self._labels = joint_counts(reference_zyx, classes_zyx, labels), labels
        whole = joint_box(ndimage.find_objects(classes_zyx), range(1, labels.classes))
        part = classes_zyx[whole] if whole else classes_zyx[:1, :1, :1]
        self._boxes = ndimage.find_objects(part)
        self._classes = blosc2.asarray(np.ascontiguousarray(part))
        self._reference = blosc2.asarray(np.ascontiguousarray(reference_zyx[whole] if whole else part))

    def removal(self, step: KeepLargest) -> Removal | None:
        """What a step would remove."""
        box = joint_box(self._boxes, step.classes)
        part = None if box is None else self._classes[box]
        removed = None if part is None else outside_largest(part, step.classes)
        if removed is None:
            return None
        moved = joint_counts(self._reference[box][removed], part[removed], self._labels)
        return box, removed, moved

    def without(self, removal: Removal | None) -> np.ndarray:
        """The joint histogram after a removal."""
        if removal is None:
            return self.joint
        joint = self.joint - removal[2]
        joint[:, 0] += removal[2].sum(1)
        return joint

    def remove(self, removal: Removal | None) -> None:
        """Removes for good."""
        if removal is None:
            return
        box, removed, _ = removal
        part = self._classes[box]
        part[removed] = 0
        self.joint, self._classes[box] = self.without(removal), part
