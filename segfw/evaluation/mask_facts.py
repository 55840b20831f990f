"""What a folder of predicted masks tells of how they came about: training, and where the images were.

``segfw predict`` writes it for people and for the report; nothing that is computed depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.durations import duration_text
from segfw.base.file_names import BIDS_FOLDER, FORMAT_FOLDERS
from segfw.base.records import Record, UserError
from segfw.base.usable_steps import FEWEST_USABLE_STEPS
from segfw.base.words import count, listed
from segfw.dataset.image_files import image_files
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.dataset.look_up import only_structures

FACTS_FILE = "made_with.json"
RECIPE_STEPS = 250_000  # 1000 epochs of 250 steps: what the published recipe trains


class Training(Record):
    """How long one fold was trained, as far as that is known.

    ``patch_size`` (z, y, x) is that of the last patches; ``patches``, how many it saw, is what earlier versions wrote.
    """

    configuration: str = ""
    fold: str = ""
    steps: int | None = None
    epochs: int | None = None
    patches: int | None = None
    patch_size: tuple[int, int, int] | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """Such as '2d fold 0: 6 steps, 1 epoch, patches of 1 x 16 x 24 voxels, 40 s'; '' if nothing is known."""
        parts = [
            count(number, noun)
            for number, noun in ((self.steps, "step"), (self.epochs, "epoch"), (self.patches, "patch"))
            if number is not None
        ]
        if self.patch_size is not None:
            parts.append(f"patches of {' x '.join(map(str, self.patch_size))} voxels")
        if self.seconds is not None:
            parts.append(duration_text(self.seconds))
        name = f"{self.configuration} fold {self.fold}: " if self.fold else ""
        return name + ", ".join(parts) if parts else ""


class MaskFacts(Record):
    """``images`` is the folder of the images, seen from the folder of the masks ('' if there is none).

    ``only`` are the structures that alone were wanted in the masks; empty if it is all.
    """

    images: str = ""
    training: tuple[Training, ...] = ()
    only: tuple[str, ...] = ()


def read_mask_facts(folder: Path) -> MaskFacts:
    """What the folder tells, or the one above of masks in a format that has a folder of its own; nothing if it tells
    nothing, or nothing that can be read.
    """
    above = folder_of_masks(folder)
    try:
        facts = MaskFacts.load(above / FACTS_FILE) if (above / FACTS_FILE).is_file() else MaskFacts()
    except UserError:  # facts for people are not worth losing the scores for
        return MaskFacts()
    if facts.images and above != folder:
        return facts.model_copy(update={"images": f"../{facts.images}"})
    return facts


def folder_of_masks(folder: Path) -> Path:
    """The folder that ``predict`` wrote, where ``folder`` holds masks of one format in it; else ``folder``."""
    resolved = folder.resolve()
    is_of_format = resolved.name in (*FORMAT_FOLDERS, BIDS_FOLDER)
    return resolved.parent if is_of_format and (resolved.parent / FACTS_FILE).is_file() else folder


def structures_in_masks(
    labels: LabelSet, folder: Path, facts: MaskFacts, *, has_other_numbers: bool = False
) -> tuple[str, ...]:
    """Of ``labels`` the structures that the masks in a folder were predicted for, in their order; all, if all were.

    The masks' own ``labels.json`` may call them otherwise: they are told by their values, or, where the masks have
    another program's numbers, by what the names mean. Raises UserError naming ``folder`` where ``labels`` have none.
    """
    if not facts.only:
        return tuple(labels.structures)
    described = folder_of_masks(folder) / LABELS_FILE
    if not has_other_numbers and described.is_file():
        own = LabelSet.load(described)
        values_of = {name: _values(own, classes) for name, classes in own.structures.items()}
        wanted = [values_of.get(name) for name in facts.only]
        found = tuple(name for name, classes in labels.structures.items() if _values(labels, classes) in wanted)
        if found:
            return found
    return only_structures(labels, facts.only, folder)


def require_in_masks(folder: Path, structures: Sequence[str], asked: Sequence[str]) -> None:
    """UserError if a structure is asked for that the masks in a folder, predicted for ``structures``, tell nothing of:
    it is in none of them, however well the model finds it."""
    lacking = [name for name in asked if name not in structures]
    if lacking:
        raise UserError(
            f"{folder}: the masks were predicted for {listed(structures, 'and')} alone, and say nothing of "
            f"{listed(lacking, 'and')}; leave that out of --only, or predict masks with it"
        )


def _values(labels: LabelSet, classes: Sequence[int]) -> frozenset[int]:
    return frozenset(labels.stored_values[index] for index in classes)


def images_of(folder: Path, facts: MaskFacts) -> Path | None:
    """The folder that the masks in ``folder`` were predicted of, if it is still there and holds images."""
    if not facts.images:
        return None
    images = (folder / facts.images).resolve()
    return images if images.is_dir() and image_files(images) else None


def training_of(curve: Sequence[Mapping[str, object]]) -> tuple[Training, ...]:
    """Of the epochs of one run, as in metrics.jsonl; nothing of none."""
    if not curve:
        return ()
    steps = [row["steps"] for row in curve if isinstance(row.get("steps"), int)]
    elapsed_s = curve[-1].get("elapsed_s")
    return (
        Training(
            steps=sum(step for step in steps if isinstance(step, int)) if steps else None,
            epochs=len(curve),
            seconds=float(elapsed_s) if isinstance(elapsed_s, int | float) else None,
        ),
    )


def training_caveat(training: Sequence[Training]) -> str:
    """A warning where a fold was trained for too few steps to have learned anything; '' if none was."""
    steps = min((fold.steps for fold in training if fold.steps is not None), default=None)
    if steps is None or steps >= FEWEST_USABLE_STEPS:
        return ""
    whose = "the model" if len(training) == 1 else "a fold of the model"
    return (
        f"{whose} was trained for {count(steps, 'step')}, where the recipe takes {RECIPE_STEPS:,}: most tasks are "
        "not learned in so few, so that these scores do not say what a trained model reaches"
    )
