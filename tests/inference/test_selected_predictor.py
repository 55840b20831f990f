"""What predict makes of what segfw select chose, and of postprocessing that is given to it."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.data import masks, same
from builders.models import cascade_model
from segfw.base.records import UserError
from segfw.images.formats import read_volume
from segfw.inference import selected_predictor
from segfw.inference.averaging import merged
from segfw.inference.prediction_job import ChosenFolds, PredictionJob
from segfw.inference.prediction_options import PredictOptions
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import ProbabilityWriter, read_probabilities
from segfw.inference.selected_predictor import SelectedPredictor
from segfw.model.load import load_model
from segfw.model.postprocess import DecodedStructure, KeepLargest, Postprocessing, apply
from segfw.model.selection import Selection
from segfw.networks import build_network
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.verbs.predict import predict

STEPS = Postprocessing(steps=(KeepLargest(name="all foreground", classes=(1, 2)),))


def two_configurations(model: Path, folder: Path) -> Path:
    """The model and another configuration, whose weights are those of the first one negated."""
    import torch

    from segfw.model.source import WEIGHTS_FILE, fold_folder
    from segfw.model.weights import load_tensors, save_weights

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


def select(folder: Path, *names: str, postprocessing: Postprocessing = STEPS) -> None:
    Selection(
        configurations=names,
        folds=dict.fromkeys(names, ("0",)),
        postprocessing=postprocessing,
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
    with pytest.raises(UserError, match="2d, 3d_fullres are trained; choose one with configuration, or let segfw sel"):
        predict(work, images, tmp_path / "masks", device="cpu")
    select(work, "3d_fullres")
    predict(work, images, tmp_path / "masks", device="cpu")
    assert "as segfw select chose: 3d_fullres, only the largest component of: all foreground" in capsys.readouterr().out
    predict(work, images, tmp_path / "plain", device="cpu", configuration="3d_fullres")
    labels = Plan.load(work / PLAN_FILE).labels
    plain = masks(tmp_path / "plain")
    expected = {name: labels.to_values(apply(labels.to_classes(mask[0]), STEPS))[None] for name, mask in plain.items()}
    assert same(masks(tmp_path / "masks"), expected)
    assert not same(expected, plain)  # otherwise this proves nothing
    with pytest.raises(UserError, match="holds masks of another model or other options"):
        predict(work, images, tmp_path / "plain", device="cpu")  # without postprocessing they are others


def test_two_that_are_averaged_are_said_where_one_is_wanted(model, tmp_path):
    """And not that ``select`` should compare them, which it has done."""
    work = two_configurations(model, tmp_path / "work")
    select(work, "2d", "3d_fullres")
    with pytest.raises(UserError) as told:
        load_model(work)
    assert str(told.value) == f"{work / 'selection.json'}: averages 2d and 3d_fullres; choose one with configuration"
    assert load_model(work, "2d").configuration.name == "2d"
    shutil.rmtree(work / "runs" / "3d_fullres")
    assert load_model(work).configuration.name == "2d"  # which alone is left


def test_folds_that_were_trained_since_select_are_warned_of_where_one_configuration_is_taken(model, tmp_path, capsys):
    work = two_configurations(model, tmp_path / "work")
    select(work, "2d")
    assert load_model(work).configuration.name == "2d"
    assert "warning" not in capsys.readouterr().out
    shutil.copytree(work / "runs" / "2d" / "fold_0", work / "runs" / "2d" / "fold_1")
    assert list(load_model(work).weights) == ["0", "1"]
    said = capsys.readouterr().out
    assert said.count("the trained folds of 2d have changed since") == 1
    load_model(work, "2d")  # which nobody chose by what is there
    assert "warning" not in capsys.readouterr().out


def test_postprocessing_of_a_file_takes_the_place_of_what_was_selected(model, images, tmp_path, capsys):
    work = two_configurations(model, tmp_path / "work")
    select(work, "2d", "3d_fullres")
    STEPS.save(tmp_path / "steps.json")
    Postprocessing().save(tmp_path / "none.json")
    for name in ("steps", "none"):
        predict(work, images, tmp_path / name, device="cpu", postprocessing=tmp_path / f"{name}.json")
        assert "as segfw select chose: 2d + 3d_fullres, only the largest" in capsys.readouterr().out
    labels = Plan.load(work / PLAN_FILE).labels
    plain = masks(tmp_path / "none")
    expected = {name: labels.to_values(apply(labels.to_classes(mask[0]), STEPS))[None] for name, mask in plain.items()}
    assert same(masks(tmp_path / "steps"), expected)
    assert not same(expected, plain)  # otherwise this proves nothing
    with pytest.raises(UserError, match=r"other options \(postprocessing\)"):
        predict(work, images, tmp_path / "steps", device="cpu", postprocessing=tmp_path / "none.json")
    predict(work, images, tmp_path / "steps", device="cpu", postprocessing=work / "selection.json")  # has the same
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out


def test_what_was_decoded_in_selection_is_decoded_in_prediction(model, images, tmp_path, capsys):
    """Of one configuration and of two, as from their stored probabilities; and each kind of mask has its own folder."""
    work = two_configurations(model, tmp_path / "work")
    steps = STEPS.model_copy(update={"decoding": (DecodedStructure(name="dark", temperature=3.0),)})
    for name in ("2d", "3d_fullres"):
        predict(work, images, tmp_path / name, device="cpu", configuration=name, save_probabilities=16)
    labels = Plan.load(work / PLAN_FILE).labels
    changed = 0
    for names in (("3d_fullres",), ("2d", "3d_fullres")):
        output = tmp_path / f"masks_{len(names)}"
        select(work, *names, postprocessing=steps)
        predict(work, images, output, device="cpu")
        assert "all foreground; largest expected Dice of: dark" in capsys.readouterr().out
        for case, mask in masks(output).items():
            files = [tmp_path / name / "probabilities" / case.replace(".nii.gz", ".b2nd") for name in names]
            opened = [read_probabilities(file) for file in files]
            temperatures = {labels.names.index("dark"): 3.0}
            expected = labels.to_values(apply(merged(opened, temperatures=temperatures), steps))
            assert (mask[0] != expected).mean() <= (0.005 if len(names) == 1 else 0)  # logits, or 16 bits of them
            changed += (labels.to_values(apply(merged(opened), steps)) != expected).sum()
        select(work, *names)
        with pytest.raises(UserError, match=r"other options \(postprocessing\)"):
            predict(work, images, output, device="cpu")
    assert changed > 20  # else this shows nothing
    select(
        work,
        "3d_fullres",
        postprocessing=Postprocessing(decoding=(DecodedStructure(name="liver", temperature=1.0),)),
    )
    with pytest.raises(UserError, match="work: has no structure 'liver', which the postprocessing decodes"):
        predict(work, images, tmp_path / "liver", device="cpu")


def test_the_second_stage_of_a_cascade_is_decoded(images, tmp_path):
    """And the first one hands on what is likeliest, as in training."""
    work = tmp_path / "work"
    cascade_model(work)
    decoded = Postprocessing(decoding=(DecodedStructure(name="dark", temperature=3.0),))
    select(work, "3d_cascade_fullres", postprocessing=decoded)
    predict(work, images, tmp_path / "masks", device="cpu")
    predict(work, images, tmp_path / "x", device="cpu", configuration="3d_cascade_fullres", save_probabilities=16)
    labels = Plan.load(work / PLAN_FILE).labels
    changed = 0
    for case, mask in masks(tmp_path / "masks").items():
        opened = read_probabilities(tmp_path / "x" / "probabilities" / case.replace(".nii.gz", ".b2nd"))
        expected = labels.to_values(merged([opened], temperatures=decoded.temperatures(labels)))
        assert (mask[0] != expected).mean() <= 0.005
        changed += (labels.to_values(merged([opened])) != expected).sum()
    assert changed > 20  # else this shows nothing


def test_a_job_that_was_sent_away_applies_its_steps(model, images, tmp_path):
    """As the worker of a cluster that gets it does."""
    job = PredictionJob(
        model=model,
        output=tmp_path,
        members=(ChosenFolds(configuration="3d_fullres", folds=None),),
        postprocessing=STEPS,
        options=PredictOptions(precision="fp32"),
        build=build_network,
    )
    sent = pickle.loads(pickle.dumps(job))
    volume = read_volume(images / "a.nii.gz")
    found = []
    for one in (sent, replace(job, postprocessing=Postprocessing())):
        predictor = one.predictor(one.load(), "cpu")
        found.append(predictor.classes(predictor.prepare(volume)))
    np.testing.assert_array_equal(found[0], apply(found[1], STEPS))
    assert (found[0] != found[1]).any()


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
    work = two_configurations(model, tmp_path / "work")
    paths = []
    select(work, "2d", "3d_fullres")

    def writer(path, info):
        paths.append(path)
        return ProbabilityWriter(path, info)

    monkeypatch.setattr(selected_predictor, "ProbabilityWriter", writer)
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


@pytest.mark.parametrize("steps", [Postprocessing(), STEPS], ids=["plain", "steps"])
def test_only_some_structures_of_two_averaged_configurations(steps, model, images, tmp_path):
    """The mask of all structures without the others, whether steps of postprocessing look at both or not."""
    work = two_configurations(model, tmp_path / "work")
    select(work, "2d", "3d_fullres", postprocessing=steps)
    predict(work, images, tmp_path / "whole", device="cpu")
    whole = masks(tmp_path / "whole")
    labels = Plan.load(work / PLAN_FILE).labels
    for name, value in list(zip(labels.names, labels.values))[1:]:
        predict(work, images, tmp_path / name, device="cpu", only=[name])
        found = masks(tmp_path / name)
        for case, mask in whole.items():
            assert mask.any()  # else this shows nothing
            np.testing.assert_array_equal(found[case], np.where(mask == value, mask, 0))
