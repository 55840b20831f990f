"""The verb ensemble: missing cases, what is kept, what is refused, and what is written."""

import json
import os

import numpy as np
import pytest

from builders.models import selection_of
from builders.probabilities import GRIDS, LABELS, record_of, smooth_logits, store
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_volume
from segfw.images.volume import AS_STORED
from segfw.inference.averaged_folder import EnsembleSettings
from segfw.inference.averaging import merged
from segfw.inference.probabilities import read_probabilities
from segfw.model.postprocess import DecodedStructure, KeepLargest, Postprocessing
from segfw.verbs.ensemble import ensemble


def test_models_of_two_orientations_are_refused_before_anything_is_written(tmp_path):
    turned = record_of((1.0, 4.0, 1.5), orientation=AS_STORED)
    for name, record in (("own", GRIDS["3d_fullres"]), ("imported", turned)):
        store(tmp_path / name / "x.b2nd", smooth_logits(record, 3), record)
    with pytest.raises(
        UserError, match=r"imported.x.b2nd: is of a model that takes images as stored, but .* canonical"
    ):
        ensemble([tmp_path / "own", tmp_path / "imported"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folders(tmp_path):
    """Two models; the case 'c' is missing in the second."""
    for number, name in enumerate(("3d_fullres", "3d_lowres")):
        for index, case in enumerate("abc"[: 3 - number]):
            record = GRIDS[name]
            path = tmp_path / name / "probabilities" / f"{case}.b2nd"
            store(path, smooth_logits(record, 3, 10 * number + index), record, configuration=name, model=name)
    return tmp_path / "3d_fullres", tmp_path / "3d_lowres"


def test_masks_of_all_common_cases_are_written_and_others_named(folders, tmp_path):
    with pytest.raises(CasesFailed, match=r"(?s)1 case failed in averaging.*\n  c: is missing in .*3d_lowres; predict"):
        ensemble(folders, tmp_path / "out")
    masks = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert masks == {"a.nii.gz", "b.nii.gz"}
    mask = read_volume(tmp_path / "out" / "a.nii.gz")
    assert mask.geometry.shape == (13, 8, 15)
    np.testing.assert_allclose(mask.geometry.matrix, GRIDS["2d"].original.matrix, atol=1e-5)
    assert set(np.unique(mask.array)) == {0, 3, 7}  # values, not classes
    assert "c" in json.loads((tmp_path / "out" / "failures.json").read_text())["failed"]
    assert (tmp_path / "out" / "labels.json").is_file()
    for folder in folders:  # without it there is nothing to complain of
        (folder / "probabilities" / "c.b2nd").unlink(missing_ok=True)
    ensemble(folders, tmp_path / "out")
    assert not (tmp_path / "out" / "failures.json").exists()


def test_what_is_there_is_kept_unless_it_is_of_other_models(folders, tmp_path):
    (folders[0] / "probabilities" / "c.b2nd").unlink()
    ensemble(folders, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")}
    (tmp_path / "out" / "a.nii.gz").unlink()
    ensemble(folders, tmp_path / "out")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")}
    assert [name for name in after if after[name] != before[name]] == ["a.nii.gz"]
    steps = Postprocessing(steps=(KeepLargest(name="a", classes=(1,)),))
    steps.save(tmp_path / "steps.json")
    for wrong in ({"weights": (1, 2)}, {"postprocessing": steps}, {"postprocessing": tmp_path / "steps.json"}):
        with pytest.raises(UserError, match="holds masks of other models, weights or postprocessing"):
            ensemble(folders, tmp_path / "out", **wrong)
    ensemble(folders, tmp_path / "out", weights=(1, 2), postprocessing=tmp_path / "steps.json", overwrite=True)
    kept = EnsembleSettings.load(tmp_path / "out" / "ensemble.json")
    assert (kept.weights, kept.postprocessing) == ((1, 2), steps)
    (tmp_path / "out" / "ensemble.json").unlink()
    with pytest.raises(UserError, match="holds masks that this verb did not write"):
        ensemble(folders, tmp_path / "out")


def test_a_case_whose_probabilities_were_made_anew_is_averaged_again(folders, tmp_path):
    out = tmp_path / "out"
    record = GRIDS["3d_lowres"]
    (folders[0] / "probabilities" / "c.b2nd").unlink()
    ensemble(folders, out)
    before = {name: read_volume(out / name).array for name in ("a.nii.gz", "b.nii.gz")}
    anew = store(folders[1] / "probabilities" / "b.b2nd", smooth_logits(record, 3, 77), record, model="3d_lowres")
    later = (out / "b.nii.gz").stat().st_mtime_ns + 10**9
    os.utime(anew, ns=(later, later))
    ensemble(folders, out)
    changed = [name for name in before if (read_volume(out / name).array != before[name]).any()]
    assert changed == ["b.nii.gz"]
    anew.write_bytes(b"broken")
    os.utime(anew, ns=(later + 10**11, later + 10**11))
    with pytest.raises(CasesFailed, match="b.b2nd: is no whole file"):
        ensemble(folders, out)
    assert not (out / "b.nii.gz").exists()


def test_a_map_of_no_label_is_an_error_before_anything_is_written(folders, tmp_path, capsys):
    command = ["ensemble", *map(str, folders), "--output", str(tmp_path / "out"), "--map-of", "liver"]
    assert main(command) == 2
    assert "--map-of 'liver' is no label" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_label_with_a_slash_makes_no_folder(tmp_path):
    labels = LABELS.model_copy(update={"names": ("background", "left/right", "left%2Fright")})
    record = GRIDS["3d_lowres"]
    store(tmp_path / "one" / "x.b2nd", smooth_logits(record, 3), record, labels)
    ensemble([tmp_path / "one"], tmp_path / "out", maps_of=labels.names[1:])
    found = sorted(path.name for path in (tmp_path / "out" / "probability").iterdir())
    assert found == ["x_left%252Fright.nii.gz", "x_left%2Fright.nii.gz"]


def test_what_a_selection_decodes_is_decoded_of_the_mean(folders, tmp_path):
    (folders[0] / "probabilities" / "c.b2nd").unlink()
    decoded = DecodedStructure(name="b", temperature=3.0)
    selection = selection_of("3d_fullres").model_copy(update={"postprocessing": Postprocessing(decoding=(decoded,))})
    selection.save(tmp_path / "selection.json")
    ensemble(folders, tmp_path / "out", postprocessing=tmp_path / "selection.json")
    models = [read_probabilities(folder / "probabilities" / "a.b2nd") for folder in folders]
    expected = LABELS.to_values(merged(models, temperatures={2: 3.0}))
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "a.nii.gz").array[0], expected)
    assert (expected != LABELS.to_values(merged(models))).sum() > 5  # else this shows nothing
    with pytest.raises(UserError, match="holds masks of other models, weights or postprocessing"):
        ensemble(folders, tmp_path / "out")


def test_postprocessing_of_other_labels_is_refused(folders, tmp_path):
    for step in (KeepLargest(name="a", classes=(2,)), KeepLargest(name="liver", classes=(1,))):
        with pytest.raises(UserError, match=f"the largest component of '{step.name}'; take that of a model with a, b"):
            ensemble(folders, tmp_path / "out", postprocessing=Postprocessing(steps=(step,)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", [(float("nan"), 1.0), (1.0, float("nan")), (float("inf"), 1.0)])
def test_weights_that_are_no_numbers_are_refused(weights, folders, tmp_path):
    with pytest.raises(UserError, match="weights are .*; give one that is not negative per folder"):
        ensemble(folders, tmp_path / "out", weights=weights)


def test_a_case_of_other_weights_and_a_damaged_one_fail_alone(folders, tmp_path):
    record = GRIDS["3d_lowres"]
    store(folders[1] / "probabilities" / "b.b2nd", smooth_logits(record, 3), record, model="trained again")
    store(folders[1] / "probabilities" / "c.b2nd", smooth_logits(record, 3), record, model="3d_lowres")
    broken = folders[0] / "probabilities" / "c.b2nd"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(
        CasesFailed, match=r"(?s)2 cases failed.*b.b2nd: was made by other weights.*c.b2nd: is no whole"
    ):
        ensemble(folders, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["a.nii.gz"]


def test_the_verb(folders, tmp_path, capsys):
    (folders[0] / "probabilities" / "c.b2nd").unlink()
    command = ["ensemble", *map(str, folders), "--output", str(tmp_path / "out"), "--weights", "0", "1"]
    assert main(command) == 0
    assert "averaging 2 cases of 3d_fullres, 3d_lowres" in capsys.readouterr().out
    assert main([*command, "--map-of", "b"]) == 0
    found = read_volume(tmp_path / "out" / "probability" / "a_b.nii.gz")
    mask = read_volume(tmp_path / "out" / "a.nii.gz").array
    assert found.array[mask == 7].min() >= 0.33 > found.array[mask != 7].mean()
    assert main([*command[:-1]]) == 2
    assert "weights are 0.0; give one that is not negative per folder" in capsys.readouterr().err
    assert main(["ensemble", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert "none: holds no probabilities" in capsys.readouterr().err
