"""Which names people give to images and which to masks: the words that layouts without a description go by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from segfw.images.formats import split_ending

FOR_MASKS = """
mask masks seg segs segmentation segmentations segmented label labels labelmap labelmaps lbl lbls gt gts groundtruth
truth contour contours roi rois annotation annotations annot annots manual delineation delineations dseg msk
rtmask rtmasks rtstruct target targets
"""
FOR_IMAGES = """
image images img imgs im scan scans volume volumes vol vols data photo photos picture pictures input inputs original
originals source sources raw ct cts cbct mr mri mrs mris pet us ultrasound xray xrays fundus dicom dicoms slices
"""
MASK_WORDS = frozenset(FOR_MASKS.split())
IMAGE_WORDS = frozenset(FOR_IMAGES.split())
MASKS_OF = "mask, seg, segmentation, label, gt, roi, contour, annotation or manual"  # what an error suggests


def words_of(name: str) -> list[str]:
    """The words of a name in small letters: runs of letters, also where a capital begins one ('PatientMask')."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", name)
    return [part.lower() for part in parts]


def is_mask_name(name: str) -> bool:
    """Whether a name, without its ending, holds a word for a mask: seg_P1, P1-label, T1_mask, ground_truth."""
    words = words_of(name)
    return bool(MASK_WORDS.intersection(words))


def is_image_name(name: str) -> bool:
    """Whether a name holds a word for an image and none for a mask."""
    return not is_mask_name(name) and bool(IMAGE_WORDS.intersection(words_of(name)))


def without_mask_words(name: str) -> str:
    """The name without its words for a mask and the separators around them: 'P1' of 'P1_seg' and of 'mask-P1'."""
    kept = re.sub(r"[A-Za-z]+", lambda found: "" if found[0].lower() in MASK_WORDS else found[0], name)
    return re.sub(r"(?<=[_. -])[_. -]+", "", kept).strip("_. -")


def split_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images and masks among files of one folder, by their names.

    Words that all names share say nothing: of Label_01_img and Label_01_seg only the second is a mask.
    """
    words = {path: MASK_WORDS.intersection(words_of(split_ending(path)[0])) for path in files}
    shared = frozenset[str]().union(*words.values()).intersection(*words.values()) if words else frozenset[str]()
    masks = [path for path in files if words[path] - shared]
    return [path for path in files if path not in masks], masks
