"""Plain sentences where scores mean little, and the facts that a folder of masks tells."""

import json

import nibabel
import numpy as np
import pytest

from builders.masks import box, folders, score
from segfw.evaluation.caveats import caveats
from segfw.evaluation.mask_facts import (
    FACTS_FILE,
    MaskFacts,
    Training,
    images_of,
    read_mask_facts,
    training_caveat,
    training_of,
)
from segfw.evaluation.summary import summarize
from segfw.verbs.evaluate import evaluate

HALF = (box((0, 2)), box((0, 1)))
EQUAL = (box((0, 2)), box((0, 2)))
MISSED = (box((0, 2)), box())
INVENTED = (box(), box((0, 2)))
NEITHER = (box(), box())


def of(*masks, **more):
    """Caveats of cases with one label, 'liver', and further labels."""
    cases = {}
    for number, pair in enumerate(masks):
        others = {name: score(*pairs[number]) for name, pairs in more.items()}
        cases[str(number)] = {"liver": score(*pair)} | others
    return caveats(summarize(cases))


def test_nothing_is_said_of_scores_that_mean_something():
    assert of(*[HALF] * 5) == []
    assert of(*[HALF] * 4, MISSED) == []


@pytest.mark.parametrize(
    "masks, words",
    [
        ([MISSED] * 5, "The predicted masks are empty in all 5 cases"),
        ([NEITHER, INVENTED, INVENTED, NEITHER, NEITHER], "The reference masks are empty in every case"),
        ([EQUAL] * 5, "Every predicted mask equals its reference to the voxel"),
        ([HALF] * 4, "4 cases only: too few for a confidence interval"),
    ],
)
def test_one_sentence_says_what_is_odd(masks, words):
    found = of(*masks)
    assert len(found) == 1
    assert found[0].startswith(words)


def test_labels_that_only_one_side_knows_are_named():
    found = of(*[HALF] * 5, tumour=[NEITHER, *[INVENTED] * 4], cyst=[MISSED, *[NEITHER] * 4])
    assert found == [
        "In no reference mask, so that nothing is known of them: tumour.",
        "Predicted in no case, though references have them (Dice 0): cyst.",
    ]


def test_a_model_of_a_few_steps_is_no_model():
    assert training_caveat([Training(steps=300)]) == ""
    assert "trained for 299 steps" in training_caveat([Training(steps=299)])
    assert training_caveat([Training()]) == ""
    assert "trained for 6 steps, where the recipe takes 250,000" in training_caveat([Training(steps=6), Training()])
    one_of_two = training_caveat([Training(steps=700), Training(steps=133)])
    assert one_of_two.startswith("a fold of the model was trained for 133 steps, ")
    assert training_caveat([Training(steps=133)]).startswith("the model was trained for 133 steps, ")
    assert "trained for 1 step," in training_caveat([Training(steps=1)])


def test_training_is_told_in_words():
    fold = Training(configuration="3d_fullres", fold="0", steps=6, epochs=1, patch_size=(8, 16, 24), seconds=41.2)
    assert fold.text == "3d_fullres fold 0: 6 steps, 1 epoch, patches of 8 x 16 x 24 voxels, 41 s"
    assert Training(configuration="2d", fold="1").text == ""


def test_training_of_a_curve():
    curve = [{"epoch": 0, "steps": 250, "elapsed_s": 60.0}, {"epoch": 1, "steps": 6, "elapsed_s": 61.5}]
    assert training_of(curve) == (Training(steps=256, epochs=2, seconds=61.5),)
    assert training_of([]) == ()


@pytest.mark.parametrize("content", [None, "{", '{"steps": 3}'])
def test_facts_that_cannot_be_read_are_none(tmp_path, content):
    if content is not None:
        (tmp_path / FACTS_FILE).write_text(content)
    assert read_mask_facts(tmp_path) == MaskFacts()


def test_the_report_takes_facts_and_images_from_the_folder_of_masks(tmp_path):
    predicted, wanted = folders(tmp_path, {"a": box((0, 2))}, {"a": box((0, 1))})
    (tmp_path / "scans").mkdir()
    mask = nibabel.load(wanted / "a.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.ones(mask.shape, np.float32), mask.affine), tmp_path / "scans" / "a_0000.nii.gz"
    )
    facts = MaskFacts(images="../scans", training=(Training(configuration="2d", fold="0", steps=6),))
    facts.save(predicted / FACTS_FILE)
    scores = evaluate(predicted, wanted, report=tmp_path / "r.html", output=tmp_path / "scores.json")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<dt>Trained for</dt><dd>2d fold 0: 6 steps</dd>" in page
    assert f"<dt>Images</dt><dd>{tmp_path / 'scans'}</dd>" in page
    assert "grey ground" not in page
    assert [note for note in scores.notes if "6 steps" in note]
    assert json.loads((tmp_path / "scores.json").read_text())["notes"] == list(scores.notes)
    (tmp_path / "scans" / "a_0000.nii.gz").unlink()
    assert images_of(predicted, facts) is None
    evaluate(predicted, wanted, report=tmp_path / "r.html")
    assert "The masks lie on a grey ground, because no images were given" in (tmp_path / "r.html").read_text()
