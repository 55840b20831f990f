"""The predict verb's options: what is made besides masks, what counts as done, and what segfw select chose."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from predicting import make_images, make_model

from segfw.data.formats import read_mask, read_volume
from segfw.inference import several
from segfw.inference.ensemble import merged
from segfw.inference.folder import OutputFolder
from segfw.inference.postprocess import KeepLargest, Postprocessing, apply
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import ProbabilityWriter, read_probabilities
from segfw.inference.several import SelectedPredictor
from segfw.model import load_model
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.prediction import predict
from segfw.records import UserError
from segfw.selection import Selection

STEPS = Postprocessing(steps=(KeepLargest(name="all foreground", classes=(1, 2)),))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), 2)


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_mask(path).array for path in folder.glob("[!.]*.nii.gz")}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_mask_without_all_that_is_asked_for_is_made_again(model, images, tmp_path, capsys):
    predict(model, images, tmp_path, device="cpu")
    first = masks(tmp_path)
    predict(model, images, tmp_path, device="cpu", save_probabilities=16, uncertainty=True)
    assert "2 cases predicted, 0 were there" in capsys.readouterr().out
    assert same(masks(tmp_path), first)
    for case in "ab":
        opened = read_probabilities(tmp_path / "probabilities" / f"{case}.b2nd")
        assert (opened.info.encoding, opened.info.folds) == ("float16", ("0",))
        found = opened.info.labels.to_values(merged([opened]))
        assert (found == first[f"{case}.nii.gz"][0]).mean() > 0.99  # but for ties, as the mask was made
        entropy = read_volume(tmp_path / "uncertainty" / f"{case}_entropy.nii.gz").array
        assert 0 < entropy.mean() <= 1
    assert len((tmp_path / "uncertainty.csv").read_text().splitlines()) == 3
    (tmp_path / "uncertainty" / "b.json").unlink()
    predict(model, images, tmp_path, device="cpu", save_probabilities=16, uncertainty=True)
    assert "1 case predicted, 1 were there" in capsys.readouterr().out
    assert (tmp_path / "uncertainty" / "b.json").is_file()


def test_bits_of_probabilities_are_16_or_8(model, images, tmp_path):
    with pytest.raises(UserError, match="--save-probabilities is 4; give 16 or 8 bits"):
        predict(model, images, tmp_path / "masks", device="cpu", save_probabilities=4)
    predict(model, images, tmp_path, device="cpu", save_probabilities=8)
    assert read_probabilities(tmp_path / "probabilities" / "a.b2nd").info.encoding == "uint8"


def test_other_bits_or_another_precision_need_another_folder(model, images, tmp_path, capsys):
    predict(model, images, tmp_path, device="cpu", save_probabilities=8)
    with pytest.raises(UserError, match=r"masks of another model or other options \(probability bits\); use another"):
        predict(model, images, tmp_path, device="cpu", save_probabilities=16)
    with pytest.raises(UserError, match=r"other options \(precision\)"):
        predict(model, images, tmp_path, device="cpu", precision="bf16")
    predict(model, images, tmp_path, device="cpu")  # what is there may be more than what is asked for
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out
    with pytest.raises(UserError, match="probability bits"):  # and is not forgotten by that
        predict(model, images, tmp_path, device="cpu", save_probabilities=16)
    predict(model, images, tmp_path, device="cpu", save_probabilities=16, overwrite=True)
    assert read_probabilities(tmp_path / "probabilities" / "a.b2nd").info.encoding == "float16"


def test_a_folder_from_before_precision_was_kept_goes_on(model, images, tmp_path, capsys):
    predict(model, images, tmp_path, device="cpu")
    kept = json.loads((tmp_path / "prediction.json").read_text())
    del kept["precision"], kept["probability_bits"]
    (tmp_path / "prediction.json").write_text(json.dumps(kept))
    predict(model, images, tmp_path, device="cpu")
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out


def test_probabilities_tell_options_apart(model, images, tmp_path):
    digests = []
    for number, options in enumerate(({}, {"step": 1.0}, {"mirroring": False}, {"precision": "fp32"})):
        predict(model, images, tmp_path / str(number), device="cpu", part="1/2", save_probabilities=8, **options)
        digests.append(read_probabilities(tmp_path / str(number) / "probabilities" / "a.b2nd").info.model)
    assert len(set(digests)) == 4


def test_overwriting_forgets_all_that_was_made_beside_a_mask(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu", save_probabilities=8, uncertainty=True)
    predict(model, images, tmp_path, device="cpu", overwrite=True, part="1/2")  # only case a, and only its mask
    left = [path.name for folder in ("probabilities", "uncertainty") for path in (tmp_path / folder).iterdir()]
    assert sorted(left) == ["b.b2nd", "b.json", "b_entropy.nii.gz"]
    assert not (tmp_path / "uncertainty.csv").exists()


def test_overwriting_by_other_options_forgets_the_masks_of_images_that_are_not_given_too(model, images, tmp_path):
    both, one = tmp_path / "masks", tmp_path / "one"
    predict(model, images, both, device="cpu")
    one.mkdir()
    shutil.copyfile(images / "a.nii.gz", one / "a.nii.gz")
    predict(model, one, both, device="cpu", step=1.0, overwrite=True)
    assert list(masks(both)) == ["a.nii.gz"]  # b would pass for one of this step


def test_settings_that_cannot_be_read_can_be_overwritten(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu")
    (tmp_path / "prediction.json").write_text("{}")
    with pytest.raises(UserError, match="prediction.json"):
        predict(model, images, tmp_path, device="cpu")
    predict(model, images, tmp_path, device="cpu", overwrite=True)
    assert len(masks(tmp_path)) == 2


def test_forgetting_a_case_leaves_one_whose_name_begins_alike(tmp_path):
    own, other = (
        [tmp_path / f"{case}.nii.gz", tmp_path / "probabilities" / f"{case}.b2nd"]
        + [tmp_path / "uncertainty" / f"{case}{ending}" for ending in (".json", "_entropy.nii.gz")]
        + [tmp_path / "uncertainty" / f"{case}_disagreement.nii.gz"]
        for case in ("a", "a_b")
    )
    for path in (*own, *other):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    OutputFolder(path=tmp_path).forget("a")
    assert not any(path.exists() for path in own)
    assert all(path.exists() for path in other)


def test_the_table_of_doubt_is_written_though_all_cases_were_there(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu", uncertainty=True)
    table = tmp_path / "uncertainty.csv"
    before = table.read_text()
    table.unlink()  # as by one killed after the last case
    predict(model, images, tmp_path, device="cpu", uncertainty=True)
    assert table.read_text() == before


def test_timings_have_all_parts(model, images, tmp_path):
    predict(model, images, tmp_path, device="cpu")
    timings = json.loads((tmp_path / "timings.json").read_text())
    parts = {"read_s", "preprocess_s", "network_s", "restore_s", "write_s"}
    assert set(timings["cases"]) == {"a", "b"}
    for times in timings["cases"].values():
        assert times.keys() == parts | {"device"}
        assert times["device"] == "cpu"
        assert times["network_s"] > 0
    network_s = sum(times["network_s"] for times in timings["cases"].values())
    assert timings["total"]["network_s"] == pytest.approx(network_s, abs=1e-3)
    table = (tmp_path / "timings.csv").read_text().splitlines()
    assert table[0] == "case,read_s,preprocess_s,network_s,restore_s,write_s,device"
    assert [row.split(",")[0] for row in table[1:]] == ["a", "b"]


def test_several_devices_are_not_for_a_cluster(model, images, tmp_path):
    with pytest.raises(UserError, match="--device with --cluster: each worker takes its own device"):
        predict(model, images, tmp_path / "masks", device=("cpu", "cpu"), cluster="localhost:8786")


def two_configurations(model: Path, folder: Path) -> Path:
    """The model and another configuration, whose weights are those of the first one negated."""
    import torch

    from segfw.model import WEIGHTS_FILE, fold_folder, load_tensors, save_weights

    shutil.copytree(model, folder)
    plan = Plan.load(folder / PLAN_FILE)
    first = plan.configurations["3d_fullres"]
    other = first.model_copy(update={"name": "2d", "patch_size": (8, 8, 16)})
    plan.model_copy(update={"configurations": {"2d": other, "3d_fullres": first}}).save(folder / PLAN_FILE)
    tensors, _ = load_tensors(fold_folder(folder, "3d_fullres", "0") / WEIGHTS_FILE)
    torch.manual_seed(8)
    weights = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in tensors.items()}
    save_weights(fold_folder(folder, "2d", "0") / WEIGHTS_FILE, weights, epoch=1, mirror_axes=())
    return folder


def select(folder: Path, *names: str) -> None:
    Selection(
        configurations=names,
        folds=dict.fromkeys(names, ("0",)),
        postprocessing=STEPS,
        compared_folds=("0",),
        cases=4,
        is_whole_cross_validation=False,
        tolerance=0.001,
        candidates=(),
        trials=(),
        labels={},
        foreground_mean=None,
        notes=(),
    ).save(folder / "selection.json")


def test_what_was_selected_is_used_with_its_postprocessing(model, images, tmp_path, capsys):
    work = two_configurations(model, tmp_path / "work")
    with pytest.raises(UserError, match="2d, 3d_fullres are trained; choose one with --configuration"):
        predict(work, images, tmp_path / "masks", device="cpu")
    select(work, "3d_fullres")
    predict(work, images, tmp_path / "masks", device="cpu")
    assert "as segfw select chose: 3d_fullres, only the largest component of: all foreground" in capsys.readouterr().out
    predict(work, images, tmp_path / "plain", device="cpu", configuration="3d_fullres")
    labels, plain = Plan.load(work / PLAN_FILE).labels, masks(tmp_path / "plain")
    expected = {name: labels.to_values(apply(labels.to_classes(mask[0]), STEPS))[None] for name, mask in plain.items()}
    assert same(masks(tmp_path / "masks"), expected)
    assert not same(expected, plain)  # otherwise this proves nothing
    with pytest.raises(UserError, match="holds masks of another model or other options"):
        predict(work, images, tmp_path / "plain", device="cpu")  # without postprocessing they are others


def test_two_selected_configurations_are_averaged(model, images, tmp_path):
    work = two_configurations(model, tmp_path / "work")
    select(work, "2d", "3d_fullres")
    predict(work, images, tmp_path / "masks", device="cpu")
    for name in ("2d", "3d_fullres"):
        predict(work, images, tmp_path / name, device="cpu", configuration=name, save_probabilities=16)
    for case, mask in masks(tmp_path / "masks").items():
        files = [tmp_path / name / "probabilities" / case.replace(".nii.gz", ".b2nd") for name in ("2d", "3d_fullres")]
        opened = [read_probabilities(file) for file in files]
        expected = opened[0].info.labels.to_values(apply(merged(opened), STEPS))
        np.testing.assert_array_equal(mask[0], expected)
    settings = json.loads((tmp_path / "masks" / "prediction.json").read_text())
    assert settings["folds"] == ["2d:0", "3d_fullres:0"]
    with pytest.raises(UserError, match="2d and 3d_fullres are selected to be averaged; choose one"):
        predict(work, images, tmp_path / "more", device="cpu", uncertainty=True)


def test_what_is_averaged_lies_beside_the_masks_and_is_removed(model, images, tmp_path, monkeypatch):
    work, paths = two_configurations(model, tmp_path / "work"), []
    select(work, "2d", "3d_fullres")

    def writer(path, info):
        paths.append(path)
        return ProbabilityWriter(path, info)

    monkeypatch.setattr(several, "ProbabilityWriter", writer)
    predict(work, images, tmp_path / "masks", device="cpu")
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path / "masks" / ".segfw"}
    assert not list((tmp_path / "masks").rglob("*.b2nd"))


def test_one_member_without_steps_predicts_as_it_does_alone(model, images):
    alone = Predictor.of(load_model(model), device="cpu")
    selected = SelectedPredictor(members=(alone,))
    volume = read_volume(images / "a.nii.gz")
    np.testing.assert_array_equal(
        selected.finish(selected.classes(selected.prepare(volume))), alone.finish(alone.classes(alone.prepare(volume)))
    )
