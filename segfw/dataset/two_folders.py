"""Two folders, one of images and one of masks, called images and labels or by other words for them."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import UserError
from segfw.dataset.cases import Case, FoundDataset
from segfw.dataset.dicom_tree import holds_dicom_mask
from segfw.dataset.found_by_names import found_by_names
from segfw.dataset.image_files import image_files, inner_folders
from segfw.dataset.layout_words import is_image_name, is_mask_name
from segfw.dataset.pairing import common_channels, file_findings, pair
from segfw.images.formats import FORMATS, split_ending

IMAGES = "images"
MASKS = "labels"
OF_OTHER_LAYOUTS = ("imagestr", "labelstr", "imagests", "labelsts", "derivatives", "sourcedata")


def find_two_folders(raw: Path, description: dict | None) -> FoundDataset | None:
    """A data set in images/ and labels/, whatever else lies beside them; None without both."""
    images = _called(raw, IMAGES)
    masks = _called(raw, MASKS)
    if images is None or masks is None or _holds_dicom_masks(masks):
        return None
    return _found(raw, images, masks, description)


def _holds_dicom_masks(masks: Path) -> bool:
    """Whether all masks of a folder are structure sets and segmentations, which say themselves what they belong to."""
    return not any(path.is_file() for path in image_files(masks)) and holds_dicom_mask(masks)


def find_two_named_folders(raw: Path, description: dict | None) -> FoundDataset | None:
    """A data set in two folders whose names say which is which, such as imgs/ and masks/; None if there are none.

    Raises UserError if more than two folders could be meant.
    """
    candidates = [folder for folder in inner_folders(raw) if folder.name.lower() not in OF_OTHER_LAYOUTS]
    masks = [folder for folder in candidates if is_mask_name(folder.name) and image_files(folder)]
    images = [folder for folder in candidates if is_image_name(folder.name) and image_files(folder)]
    if not masks or not images:
        return None
    for role, folders, name in (("images", images, IMAGES), ("masks", masks, MASKS)):
        if len(folders) > 1:
            listed = ", ".join(f"{folder.name}/" for folder in folders)
            remedy = f"call the one to take {name}/ and the other side {MASKS if name == IMAGES else IMAGES}/"
            raise UserError(f"{raw}: {listed} could each be the folder of the {role}; {remedy}, or move the rest away")
    return _found(raw, images[0], masks[0], description)


def _called(raw: Path, name: str) -> Path | None:
    """The folder of that name, else the one whose name differs from it in capitals alone."""
    if (raw / name).is_dir():
        return raw / name
    return next((folder for folder in inner_folders(raw) if folder.name.lower() == name), None)


def _found(raw: Path, image_folder: Path, mask_folder: Path, description: dict | None) -> FoundDataset:
    images = image_files(image_folder)
    masks = image_files(mask_folder)
    if not images or not masks:
        empty = mask_folder if images else image_folder
        raise UserError(f"{empty}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    pairing = pair(images, masks)
    expected = common_channels(pairing)
    findings = file_findings(pairing, masks, expected)
    return found_by_names(raw, description, "folders", pairing, expected, findings=findings)


def find_images_alone(raw: Path) -> FoundDataset:
    """The images of a folder that has no masks, for a check of what can be told without; UserError if it has none."""
    folder = raw / IMAGES
    files = image_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    return FoundDataset(
        name=raw.resolve().name,
        root=raw,
        layout="images without masks",
        channels=None,
        labels=None,
        cases=tuple(Case(id=split_ending(path)[0], images=(path,)) for path in files),
        notes=("there are no masks (labels/): only the images were checked",),
    )
