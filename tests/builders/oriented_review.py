"""The same patient stored with its axes in every order and direction, and what must come out when he is drawn on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from builders.drafts_folder import make_drafts
from builders.review_hand import SCREEN, Hand

AXES = ("RL", "AP", "SI")
ALL = tuple("".join(code) for order in permutations(AXES) for code in product(*order))
SHAPE_XYZ = (24, 20, 12)
SPACING_MM = (1.0, 1.5, 3.0)
BRIGHT_XYZ = (17, 15, 9)  # the brightest voxel, in RAS order
TILT_DEGREES = 12.0  # of oblique scans, about two axes


def make_oriented(root: Path, codes: Iterable[str], *, is_oblique: bool = False) -> Path:
    """A folder of drafts with a case for each code such as 'LPS'; the image is dark but for a few voxels."""
    codes = list(codes)
    folder = make_drafts(root, {code: np.zeros((2, 2, 2), np.uint8) for code in codes}, has_quality=False)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = (-10.0, -12.0, 30.0)
    if is_oblique:
        affine[:3, :3] = _tilt() @ affine[:3, :3]
    mask = np.zeros(SHAPE_XYZ, np.uint8)
    mask[3:13, 4:12, 2:7] = 1
    image = np.full(SHAPE_XYZ, -1000, np.int16)
    image[tuple(slice(index - 1, index + 2) for index in BRIGHT_XYZ)] = 250  # a screen mixes neighbours
    image[BRIGHT_XYZ] = 300
    for code in codes:
        for array, path in ((mask, folder / f"{code}.nii.gz"), (image, root / "images" / f"{code}_0000.nii.gz")):
            plain = nibabel.Nifti1Image(array, affine)
            turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(code)))
            nibabel.save(plain.as_reoriented(turn), path)
    return folder


def _tilt() -> np.ndarray:
    cosine = np.cos(np.deg2rad(TILT_DEGREES))
    sine = np.sin(np.deg2rad(TILT_DEGREES))
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return about_x @ about_z


def check_drawn(hand: Hand, folder: Path, code: str) -> None:
    """Finds the brightest voxel on the page, draws on it and beside it, saves, and looks for both in the file."""
    hand.open(code)
    found = hand.value(
        f"(({{ values, dims }}) => {{ const at = values.indexOf(Math.max(...values)); "
        f"return [at % dims[0], Math.floor(at / dims[0]) % dims[1], Math.floor(at / dims[0] / dims[1])]; }})"
        f"({SCREEN}.open.image)"
    )
    hand.go_to(found)
    hand.value(f"{SCREEN}.radius_mm = 0.5")
    if hand.value(f"{SCREEN}.tool") != "brush":
        hand.press("b")
    hand.press("Enter")
    hand.until(f"{SCREEN}.open.isDirty")
    first = hand.bitmap
    hand.value(f"{SCREEN}.radius_mm = 4")
    hand.go_to((8, 8, 9))
    hand.stroke("coronal", (8, 8, 9), (12, 8, 9))
    drawn = hand.bitmap
    hand.save()

    draft = nibabel.load(folder / f"{code}.nii.gz")
    saved = nibabel.load(folder / "review" / "labels" / code / "v0001.nii.gz")
    assert nibabel.aff2axcodes(saved.affine) == tuple(code)
    np.testing.assert_array_equal(saved.affine, draft.affine)
    assert saved.shape == draft.shape
    # nibabel alone, and nothing of segfw, says where a voxel of the file lies.
    before = np.asarray(nibabel.as_closest_canonical(draft).dataobj)
    after = np.asarray(nibabel.as_closest_canonical(saved).dataobj)
    np.testing.assert_array_equal(after, drawn.T)
    changed = np.argwhere(before != first.T)
    np.testing.assert_array_equal(changed, [BRIGHT_XYZ])
    assert after[BRIGHT_XYZ] == 1
    assert (after != before).sum() > 20
