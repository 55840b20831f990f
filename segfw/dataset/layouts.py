"""Finds the cases of a RAW folder in any of the accepted layouts, without opening an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from segfw.base.records import UserError
from segfw.dataset.annotated_structures import with_annotated
from segfw.dataset.bids import find_bids
from segfw.dataset.cases import Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, read_description, with_label_maps
from segfw.dataset.decathlon import find_decathlon
from segfw.dataset.dicom_tree import find_dicom_tree
from segfw.dataset.flat_folder import find_flat_folder
from segfw.dataset.image_files import inner_folders
from segfw.dataset.label_names import label_table_of, with_colours, with_label_names
from segfw.dataset.named_structures import with_named_masks
from segfw.dataset.nnunet_raw import find_by_list, find_nnunet
from segfw.dataset.own_names import with_own_names
from segfw.dataset.patient_folders import find_patient_folders
from segfw.dataset.two_folders import IMAGES, find_images_alone, find_two_folders, find_two_named_folders

Find = Callable[[Path, dict | None], FoundDataset | None]
SHOWN = 8  # names that a sentence lists


class Layout(NamedTuple):
    """A way to lay out a data set: how it looks, and what finds it, or gives None where the folder is another's."""

    looks: str
    find: Find
    has_mask_folder: bool = False  # all its masks lie in one folder


# Tried in this order; the first that knows the folder for its own is taken.
LAYOUTS: Mapping[str, Layout] = {
    "list": Layout("", find_by_list, True),  # nnU-Net's field 'dataset', which few have heard of
    "folders": Layout("images/ and labels/", find_two_folders, True),
    "decathlon": Layout("dataset.json with 'training' (Medical Segmentation Decathlon)", find_decathlon, True),
    "nnunet": Layout("imagesTr/, labelsTr/ and dataset.json (nnU-Net)", find_nnunet, True),
    "dicom": Layout("a tree of DICOM series with RTSTRUCT or DICOM SEG in it", find_dicom_tree),
    "named folders": Layout("two folders with such names as imgs/ and masks/", find_two_named_folders, True),
    "bids": Layout("sub-01/anat/ and derivatives/*/sub-01/anat/*_dseg.nii.gz (BIDS)", find_bids),
    "patients": Layout("a folder for each patient with image.nii.gz and mask.nii.gz in it", find_patient_folders),
    "flat": Layout("P1_img.nii.gz beside P1_seg.nii.gz", find_flat_folder),
}


def find_dataset(raw: Path, label_names: Path | None = None) -> FoundDataset:
    """Recognises the layout of a RAW folder and lists its training cases; raises UserError if it is none.

    ``label_names`` is a table of label names as ``read_label_table`` takes it, which is else looked for beside the
    folders.

    ``layout`` of what is found: 'nnunet' (imagesTr + labelsTr + dataset.json with channel_names, or the files that its
    field 'dataset' names), 'decathlon' (dataset.json with modality and training), 'folders' (images + labels or the
    like, all else inferred), 'DICOM series with structure sets', 'bids', 'patient folders' (one a patient), 'flat
    folder' (masks beside images).
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder that holds the images and masks")
    found = _find(raw, read_description(raw / DESCRIPTION_FILE))
    table = label_table_of(raw, label_names)
    named = with_own_names(with_named_masks(with_label_names(found, table)))
    return with_annotated(with_colours(with_label_maps(_with_painting_problem(named)), table))


def find_dataset_or_images(raw: Path, label_names: Path | None = None) -> FoundDataset:
    """As ``find_dataset``; but where there is images/ and no folder of masks, the images alone, for a check."""
    raw = Path(raw)
    has_images = (raw / IMAGES).is_dir()
    return find_images_alone(raw) if has_images and _of_mask_folder(raw) is None else find_dataset(raw, label_names)


def find_dataset_of_masks(masks: Path) -> FoundDataset | None:
    """The data set whose masks all lie in the folder ``masks``; None if the folder above it is no such data set."""
    found = _of_mask_folder(masks.resolve().parent)
    return None if found is None else with_annotated(with_label_maps(found))


def _of_mask_folder(raw: Path) -> FoundDataset | None:
    """The data set of a RAW folder whose masks all lie in one folder; None if it has another layout, or none."""
    description = read_description(raw / DESCRIPTION_FILE)
    finders = (layout.find for layout in LAYOUTS.values() if layout.has_mask_folder)
    return next(filter(None, (find(raw, description) for find in finders)), None)


def _find(raw: Path, description: dict | None) -> FoundDataset:
    for layout in LAYOUTS.values():
        found = layout.find(raw, description)
        if found is not None:
            return found
    looks = ", or ".join(layout.looks for layout in LAYOUTS.values() if layout.looks)
    raise UserError(f"{raw}: holds {_seen(raw)}, which is no layout that segfw reads; expected {looks}")


def _seen(raw: Path) -> str:
    """What lies in a folder, in words, and in the first of its folders."""
    names = sorted(path.name for path in raw.iterdir())
    if not names:
        return "nothing"
    listed = ", ".join(names[:SHOWN])
    if len(names) > SHOWN:
        listed += f" and {len(names) - SHOWN} more"
    folders = inner_folders(raw)
    if not folders:
        return listed
    inside = sorted(path.name for path in folders[0].iterdir())
    more = f" and {len(inside) - SHOWN} more" if len(inside) > SHOWN else ""
    return f"{listed} (in {folders[0].name}: {', '.join(inside[:SHOWN]) or 'nothing'}{more})"


def _with_painting_problem(found: FoundDataset) -> FoundDataset:
    """The data set with an error if its regions are listed so that masks cannot hold them."""
    problem = found.labels.painting_problem if found.labels is not None else ""
    if not problem:
        return found
    finding = Finding(
        kind="region-order",
        severity="error",
        file=DESCRIPTION_FILE,
        what=problem,
        remedy="list in 'labels' the regions from large to small, and the values that they are painted as likewise in "
        "'regions_class_order'",
    )
    return replace(found, findings=(*found.findings, finding))
