"""The expert's half of the loop, once around: from DICOM to drafts, signatures, files for others, and a new model.

The edits are simulated: a few strokes that nobody looked at. The first case is painted, decided and signed in a
headless browser, where there is one; the second as its page would send it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from builders.browser import NoBrowser, started_chromium
from builders.data import blocks_case
from builders.dicom_masks import Grid, contours_of, write_series, write_structures
from segfw.cli import main
from segfw.dataset.layouts import find_dataset
from segfw.images.formats import read_mask, read_volume
from segfw.quality.case_quality import CaseQuality, quality_file
from segfw.reviewing.mask_version import content_sha256
from segfw.reviewing.review_store import ReviewStore
from segfw.verbs.status import status

pytest.importorskip("highdicom", reason="DICOM SEG is not installed: pip install 'segfw[dicom]'")
pytest.importorskip("starlette", reason="the review page is not installed: pip install 'segfw[review]'")

from builders.review_hand import SCREEN, Hand, hand_at  # noqa: E402  (these start what was asked for above)
from builders.review_server import Reviewer, review_server  # noqa: E402

SHORT = ("--epochs", "1", "--steps-per-epoch", "2", "--batch-size", "2", "--device", "cpu")
STRUCTURES = "structure,label\nSpinal Cord,cord\nLiver,liver\ncord,cord\nliver,liver\n"
NAMES = ("background", "cord", "liver")
CASES = ("new_1", "new_2")


def write_patient(folder: Path, number: int, *, has_structures: bool) -> Path:
    """A CT of a made-up patient, with its structure set where it is to be learned from."""
    image, mask = (array.T for array in blocks_case(number))
    grid = Grid(shape=image.shape, series=f"1.2.{number}", frame=f"1.2.{number}.9")
    write_series(folder / "CT", image, grid, patient=f"P{number}", PatientID=f"P{number}")
    if has_structures:
        rois = {"Spinal Cord": contours_of(mask == 3, grid), "Liver": contours_of(mask == 7, grid)}
        write_structures(folder / "RS", rois, grid, patient=f"P{number}", PatientID=f"P{number}")
    return folder


def segfw(*words: object) -> None:
    assert main([str(word) for word in words]) == 0, words


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A calibrated model of six patients, and its drafts of two new ones, in the order of a queue."""
    home = tmp_path_factory.mktemp("chain")
    for number in range(6):
        write_patient(home / "raw" / f"p{number}", number, has_structures=True)
    (home / "raw" / "structures.csv").write_text(STRUCTURES)
    for number, case in enumerate(CASES):
        write_patient(home / "patients" / case, 10 + number, has_structures=False)
        (home / "scans").mkdir(exist_ok=True)
        (home / "patients" / case / "CT").rename(home / "scans" / case)
    halves = [[f"p{number}" for number in range(6) if number % 2 == part] for part in (0, 1)]
    folds = [{"train": halves[part], "val": halves[1 - part]} for part in (0, 1)]
    (home / "splits.json").write_text(json.dumps(folds))
    segfw("run", home / "raw", home / "work", "--configurations", "2d", "--splits", home / "splits.json", *SHORT)
    segfw("calibrate", home / "work", "--shifts", "off", "--device", "cpu")
    segfw("predict", home / "work", home / "scans", home / "masks", "--device", "cpu")
    segfw("queue", home / "masks")
    return home


def edited_on_the_page(reviewer: Reviewer, case: str) -> np.ndarray:
    """A draft as the page shows it, to which a small block of each structure was added (simulated strokes)."""
    bitmap = reviewer.bitmap(case).copy()
    bitmap[2:4, 3:6, 2:5] = 1
    bitmap[5:7, 8:10, 9:12] = 2
    return bitmap


def review_case(home: Path, case: str) -> str:
    """Opens, edits, decides, finishes and signs a case through the page's server; the hash that was signed."""
    with review_server(home / "masks", user="Anna") as reviewer:
        reviewer.enter()
        structures = reviewer.get("/api/session").json["structures"]
        assert [(each["label"], each["index"]) for each in structures] == [("cord", 1), ("liver", 2)]
        assert {item["case"] for item in reviewer.get("/api/queue").json["items"]} == set(CASES)
        assert reviewer.post("/api/open", {"case": case}).status == 200
        saved = reviewer.save(case, edited_on_the_page(reviewer, case), 0, "&origin=edited")
        assert saved.status == 200, saved.body
        for structure in ("cord", "liver"):
            decided = {"case": case, "structure": structure, "region": None, "decision": "edit", "asked_again": True}
            assert reviewer.post("/api/decide", decided).status == 200
        finished = reviewer.post("/api/finish", {"case": case}).json
        assert finished["sha256"] == saved.json["sha256"]
        name = {"name": "Anna Bell", "meaning": "review", "sha256": finished["sha256"]}
        assert reviewer.post("/api/sign", {"case": case, **name}).status == 200
        return str(finished["sha256"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser; None where there is none."""
    try:
        with started_chromium() as started:
            yield started
    except NoBrowser:
        yield None


def painted_in_browser(home: Path, case: str, browser: Any) -> str:
    """Paints both structures with a mouse, decides, finishes and signs with keys; the hash that was signed."""
    with review_server(home / "masks", user="Anna") as server, hand_at(browser, server) as hand:
        hand.enter()
        hand.open(case)
        before = hand.bitmap
        hand.press("b", "y")  # a brush that may write over other structures
        for index, places in ((1, ((2, 4, 3), (5, 4, 3))), (2, ((9, 9, 6), (12, 9, 6)))):
            hand.go_to(places[0])
            hand.value(f"{SCREEN}.select({index}), {SCREEN}.radius_mm = 1.5")
            hand.stroke("axial", *places)
            for x, y, z in places:
                assert hand.bitmap[z, y, x] == index
        drawn = hand.bitmap
        assert (drawn != before).any()
        hand.save()
        for index in (1, 2):
            hand.value(f"{SCREEN}.select({index})")
            hand.press("e")
            hand.until(f"{SCREEN}.open.about.structures[{index - 1}].decision === 'edit'")
        return signed_with_keys(hand, home, case, drawn)


def signed_with_keys(hand: Hand, home: Path, case: str, drawn: np.ndarray) -> str:
    """Finishes and signs the case that is open."""
    hand.press("g")
    hand.ready(f"sign {case}")
    hand.page.keyboard.type("Anna Bell")
    hand.press("Tab", "ArrowDown", "Tab", "Enter")
    hand.page.wait_for_selector('[data-action="amend"]')
    standing = ReviewStore.open(home / "masks").standing(case)
    assert (standing.signed_name, standing.meaning) == ("Anna Bell", "review")
    np.testing.assert_array_equal(hand.server.bitmap(case, standing.version), drawn)
    return str(standing.sha256)


def test_from_dicom_to_signed_masks_and_to_a_new_model(home, browser):
    masks = home / "masks"
    for case in CASES:
        assert {each.label for each in CaseQuality.load(quality_file(masks, case)).structures} == set(NAMES[1:])
    drafts = {case: (masks / f"{case}.nii.gz").read_bytes() for case in CASES}

    # What a person signs on the page is what the store holds, and drafts stay as they were.
    first, second = CASES
    signed = {
        first: review_case(home, first) if browser is None else painted_in_browser(home, first, browser),
        second: review_case(home, second),
    }
    store = ReviewStore.open(masks)
    painted = {case: store.read(case) for case in CASES}
    for case, volume in painted.items():
        assert store.standing(case).state == "SIGNED"
        assert content_sha256(volume.array[0], volume.geometry.matrix, store.label_names) == signed[case]
        assert (masks / f"{case}.nii.gz").read_bytes() == drafts[case]
        assert set(np.unique(volume.array)) == {0, 1, 2}
    assert main(["status", str(masks), "--verify"]) == 0

    # Files for others hold the same voxels under the same names, and say who signed which version.
    segfw("deliver", masks, home / "signed", "--as", "rtstruct", "dicom-seg", "nifti")
    for case, volume in painted.items():
        image = read_volume(home / "scans" / case)
        for file in (f"rtstruct/{case}.dcm", f"dicom-seg/{case}.dcm", f"{case}.nii.gz"):
            again = read_mask(home / "signed" / file, image)
            np.testing.assert_array_equal(again.array, volume.array, err_msg=file)
            np.testing.assert_allclose(again.geometry.matrix, volume.geometry.matrix, atol=1e-5)
        structure_set = dcmread(home / "signed" / "rtstruct" / f"{case}.dcm")
        assert [str(item.ROIName) for item in structure_set.StructureSetROISequence] == list(NAMES[1:])
        assert structure_set.ApprovalStatus == "APPROVED"
        assert structure_set.ReviewerName == "Anna Bell"
    listed = json.loads((home / "signed" / "delivered.json").read_text())
    assert {file["version_sha256"] for file in listed["files"]} == set(signed.values())

    # They are training masks of the next data set as they are.
    tree = home / "next"
    for case in CASES:
        (tree / case).mkdir(parents=True)
        (home / "scans" / case).rename(tree / case / "CT")
        (home / "signed" / "rtstruct" / f"{case}.dcm").rename(tree / case / "structures.dcm")
    (tree / "structures.csv").write_text(STRUCTURES)
    found = {case.id: case for case in find_dataset(tree).cases}
    assert set(found) == set(CASES)
    for case, volume in painted.items():
        learned = read_mask(found[case].label, read_volume(found[case].images[0]), found[case].drawn_as)
        np.testing.assert_array_equal(learned.array, volume.array)
    for case in CASES:
        (tree / case / "CT").rename(home / "scans" / case)

    # A model is trained on with them, and its drafts go into a folder of their own.
    code = main(
        ["retrain", *map(str, (home / "work", home / "new", "--labels", masks, "--epochs", 1, "--device", "cpu"))]
    )
    assert code in (0, 1)  # promoted or not: after some steps either may be
    promotion = json.loads((home / "new" / "promotion.json").read_text())
    assert promotion["is_promoted"] is (code == 0)
    assert status(home / "new").kind == "work"
    segfw("predict", home / "new", home / "scans", home / "masks_2", "--device", "cpu")
    assert read_mask(home / "masks_2" / "new_1.nii.gz").array.shape == painted["new_1"].array.shape


def test_the_ledger_and_the_queue_know_what_was_signed(home):
    store = ReviewStore.open(home / "masks")
    if any(store.standing(case).state != "SIGNED" for case in CASES):
        pytest.skip("the chain did not come to its signatures")
    segfw("queue", home / "masks")
    rows = list(csv.DictReader((home / "masks" / "queue.csv").open()))
    assert {row["state"] for row in rows} <= {"SIGNED"}
