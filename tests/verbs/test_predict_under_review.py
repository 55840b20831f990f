"""``predict`` and ``ensemble`` into a folder whose masks people review: they write drafts and nothing else."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from builders.data import blocks_case, write_nifti
from builders.probabilities import GRIDS, smooth_logits, store
from builders.review import ANNA, BEN
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_mask
from segfw.reviewing.review_check import check_review
from segfw.reviewing.review_store import ReviewStore
from segfw.verbs.ensemble import ensemble
from segfw.verbs.predict import predict

CPU = {"device": "cpu"}


@pytest.fixture
def work(tmp_path, model, images):
    """A model, images and masks of them, of which 'a' is signed and of which 'b' has a version that is not finished."""
    shutil.copytree(images, tmp_path / "images")
    masks = tmp_path / "masks"
    predict(model, tmp_path / "images", masks, **CPU)
    main(["accept", str(masks), "a", "--user", "Ben", "--sign", "Ben"])
    review = ReviewStore.open(masks)
    review.open_case("b", ANNA)
    values = review.read("b").array[0].copy()
    values[0, 0, 0] = 7 if values[0, 0, 0] == 0 else 0
    review.save("b", ANNA, values, base=0, origin="edited", tool="page")
    review.release("b", ANNA)
    return model, tmp_path / "images", masks


def people_made(masks):
    """All files of people but the log, which grows."""
    found = (path for path in (masks / "review").rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if path.suffix not in (".jsonl", ".lock")}


def test_the_model_and_the_images_of_a_review_are_found(work):
    _, images, masks = work
    review = ReviewStore.open(masks)
    assert review.image_files("a") == (images / "a.nii.gz",)
    settings = json.loads((masks / "prediction.json").read_text())
    assert settings["weights_digest"]
    header = read_mask(masks / "a.nii.gz")
    assert header.array.shape[1:] == review.read("a").array.shape[1:]
    versions = review.versions("a")
    assert versions[0].model_digest == review.model_digest()


def test_another_call_with_the_same_model_changes_nothing(work):
    model, images, masks = work
    before = people_made(masks)
    lines = len(ReviewStore.open(masks).log.events())
    predict(model, images, masks, **CPU)
    write_nifti(images / "c.nii.gz", blocks_case(2, (16, 24, 20))[0])
    predict(model, images, masks, **CPU)
    review = ReviewStore.open(masks)
    assert review.case_ids == ("a", "b", "c")
    assert len(review.log.events()) == lines
    assert people_made(masks) == before
    assert review.changed("a") == ()


def test_another_model_is_refused_and_with_overwrite_begins_new_drafts(work):
    model, images, masks = work
    draft = (masks / "b.nii.gz").read_bytes()
    with pytest.raises(UserError, match="another model or other options"):
        predict(model, images, masks, step=1.0, **CPU)
    assert (masks / "b.nii.gz").read_bytes() == draft

    ReviewStore.open(masks).open_case("b", ANNA)
    with pytest.raises(UserError, match="is being reviewed now .b by Anna."):
        predict(model, images, masks, step=1.0, overwrite=True, **CPU)
    assert (masks / "b.nii.gz").read_bytes() == draft
    ReviewStore.open(masks).release("b", ANNA)

    before = people_made(masks)
    predict(model, images, masks, step=1.0, overwrite=True, **CPU)
    review = ReviewStore.open(masks)
    assert people_made(masks) == before
    assert (review.standing("a").state, review.standing("b").state, review.standing("b").version) == (
        "SIGNED",
        "DRAFT",
        0,
    )
    assert review.changed("a") == ("model",)  # so it is not delivered before somebody signs it again
    new = [(event.case, event.model_digest) for event in review.log.events() if event.event == "new-draft"]
    assert new == [("a", review.model_digest()), ("b", review.model_digest())]
    review.amend("a", BEN, "the same voxels, with a new model at hand")
    review.sign("a", BEN, name="Ben", meaning="review", version_sha256=review.standing("a").sha256 or "")
    assert review.changed("a") == ()
    assert check_review(review).ok


def test_a_new_image_makes_a_new_draft_and_shows_at_what_is_signed(work):
    model, images, masks = work
    write_nifti(images / "a.nii.gz", blocks_case(5, (16, 24, 20))[0])
    predict(model, images, masks, **CPU)
    review = ReviewStore.open(masks)
    assert review.standing("a").state == "SIGNED"
    assert "image" in review.changed("a")
    assert [event.case for event in review.log.events() if event.event == "new-draft"] == ["a"]


def test_what_a_dry_run_refuses_is_what_the_call_would(work, capsys):
    model, images, masks = work
    more = ["--step", "1.0", "--dry-run", "--device", "cpu"]
    assert main(["predict", str(model), str(images), str(masks), *more]) == 2
    assert "another model or other options" in capsys.readouterr().err


def test_no_record_makes_predict_remove_what_people_made(work):
    model, images, masks = work
    record = masks / ".segfw" / "a.json"
    kept = json.loads(record.read_text())
    kept["files"].append("review/labels/a/v0001.nii.gz")
    record.write_text(json.dumps(kept))
    before = people_made(masks)
    predict(model, images, masks, overwrite=True, **CPU)
    assert people_made(masks) == before


def test_an_ensemble_leaves_what_people_made(tmp_path):
    for number, name in enumerate(("3d_fullres", "3d_lowres")):
        for index, case in enumerate("ab"):
            path = tmp_path / name / "probabilities" / f"{case}.b2nd"
            logits = smooth_logits(GRIDS[name], 3, 10 * number + index)
            store(path, logits, GRIDS[name], configuration=name, model=name)
    folders = (tmp_path / "3d_fullres", tmp_path / "3d_lowres")
    masks = tmp_path / "masks"
    ensemble(folders, masks)
    main(["accept", str(masks), "a", "--user", "Ben", "--sign", "Ben"])
    before = people_made(masks)
    review = ReviewStore.open(masks)
    assert review.standing("a").state == "SIGNED"
    with pytest.raises(UserError, match="is under review, and its masks are of another model"):
        ensemble(folders, masks, weights=(1.0, 3.0))
    ensemble(folders, masks, weights=(1.0, 3.0), overwrite=True)
    assert people_made(masks) == before
    assert review.changed("a") == ("model",)
    assert [event.case for event in review.log.events() if event.event == "new-draft"] == ["a", "b"]
    assert set(np.unique(review.read("a", 0).array)) <= {0, 3, 7}
