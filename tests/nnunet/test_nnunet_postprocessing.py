"""nnU-Net's postprocessing taken over from its JSON and given in both of its files; its pickle is never opened."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders.models import selection_of
from builders.nnunet import LABELS, REGIONS, Runs, dataset, state, trained_folder
from segfw.base.records import UserError
from segfw.model.postprocess import FOREGROUND, KeepLargest, Postprocessing, apply
from segfw.model.selection import load_postprocessing
from segfw.model.source import load_plan, trained_folds
from segfw.nnunet.import_folders import channels_and_labels
from segfw.nnunet.postprocessing_files import (
    FUNCTION,
    MODULE,
    FoundPostprocessing,
    UnknownError,
    find_postprocessing,
    read_postprocessing,
)
from segfw.verbs.export import export_model
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import import_nnunet
from segfw.verbs.predict import predict


def labels(entries=LABELS):
    return channels_and_labels(dataset(entries), Path("dataset.json"))[1]


def described_by(*arguments: object, function: str = FUNCTION) -> str:
    return json.dumps({"postprocessing_fns": [function] * len(arguments), "postprocessing_kwargs": arguments})


def keep(what: object, **more: object) -> dict:
    return {"labels_or_regions": what, **more}


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["postprocessing.json", "mine.json"])
def test_a_file_is_told_by_what_it_says_and_not_by_its_name(tmp_path, name):
    steps = Postprocessing(steps=(KeepLargest(name="large", classes=(2,)),))
    assert load_postprocessing(write(tmp_path / name, steps.model_dump_json())) == steps
    selection = selection_of("2d").model_copy(update={"postprocessing": steps}).model_dump(mode="json")
    assert load_postprocessing(write(tmp_path / name, json.dumps(selection))) == steps
    for content, why in (
        (described_by(keep([1])), r"is nnU-Net's own; import its model first and give the MODEL.runs.CONFIGURATION"),
        ("[1]", "holds no steps; give a selection.json"),
        ("{", "holds no steps"),
        ('{"steps": [1]}', "field 'steps.0'"),
        (json.dumps(selection | {"postprocessing": {"steps": 1}}), "field 'postprocessing.steps'"),
        ('{"configurations": [], "postprocessing": {}}', "field 'folds' is missing"),
    ):
        with pytest.raises(UserError, match=f"{name}: {why}"):
            load_postprocessing(write(tmp_path / name, content))
    with pytest.raises(UserError, match="a.pkl: is nnU-Net's own"):
        load_postprocessing(write(tmp_path / "a.pkl", b"\x80\x02."))
    with pytest.raises(UserError, match="none.json: no such file"):
        load_postprocessing(tmp_path / "none.json")


@pytest.mark.parametrize("entries", [LABELS, REGIONS])
def test_what_nnunets_json_says(tmp_path, entries):
    """Labels have the values 2 (large) and 1 (small); of the regions 'core' is the label 2."""
    found = read_postprocessing(write(tmp_path / "a.json", described_by(keep([1, 2]), keep([2]))), labels(entries))
    assert found.steps[0].name == FOREGROUND
    assert found.steps[1] == KeepLargest(name="core" if entries is REGIONS else "large", classes=(2,))


def test_what_it_does_to_a_mask(tmp_path):
    """A row 1 1 1 0 2 2 0 1: of 'all foreground' stays the three, of both labels apart the three and the two."""
    row = np.array([1, 1, 1, 0, 2, 2, 0, 1], np.uint8).reshape(1, 1, 8)
    own = labels()
    for arguments, wanted in (
        ((keep([1, 2]),), [1, 1, 1, 0, 0, 0, 0, 0]),
        ((keep(1), keep(2, background_label=0)), [1, 1, 1, 0, 2, 2, 0, 0]),
    ):
        steps = read_postprocessing(write(tmp_path / "a.json", described_by(*arguments)), own)
        assert own.to_values(apply(own.to_classes(row), steps)).ravel().tolist() == wanted


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (described_by(keep(1), function="open_holes"), "asks for 'open_holes'"),
        (described_by(keep(1, background_label=2)), "background_label"),
        (described_by(keep(7)), r"labels \[7\], which are no structure"),
        (described_by(keep(True)), "holds the label True"),
        (described_by(keep("1")), "holds the label '1'"),
        ('{"postprocessing_fns": ["x"], "postprocessing_kwargs": []}', "ValueError"),
        (described_by(keep(1)).replace("1", "[" * 500 + "1" + "]" * 500), "nested more than 100 times"),
        (described_by(keep("x" * 500)), r"holds the label 'x{12}\.\.\.x{13}'$"),
        ("{", "Expecting property name"),
        ("[1]", "TypeError"),
    ],
)
def test_what_is_unknown_is_named(tmp_path, content, why):
    with pytest.raises(UnknownError, match=why):
        read_postprocessing(write(tmp_path / "a.json", content), labels())


def test_the_most_folds_count_also_where_they_cannot_be_read(tmp_path):
    write(tmp_path / "crossval_results_folds_0" / "postprocessing.json", described_by(keep(1)))
    whole = write(tmp_path / "crossval_results_folds_0_1_2" / "postprocessing.json", described_by(keep(2)))
    found = find_postprocessing(tmp_path, labels())
    assert (found.steps.text, found.file) == ("large", "crossval_results_folds_0_1_2/postprocessing.json")
    assert find_postprocessing(whole.parent, labels()).file == "postprocessing.json"
    write(whole.with_suffix(".pkl"), b"no pickle")  # is not opened
    assert find_postprocessing(tmp_path, labels()).steps.text == "large"
    whole.write_text("{")  # what fewer folds say is not what all of them do
    found = find_postprocessing(tmp_path, labels())
    assert found.steps is None
    assert found.problem.startswith("crossval_results_folds_0_1_2/postprocessing.json: it is not as nnU-Net writes it")
    whole.unlink()
    found = find_postprocessing(tmp_path, labels())
    assert found.steps is None
    assert found.problem == "crossval_results_folds_0_1_2/postprocessing.pkl: it is a pickle, which could run code"
    assert find_postprocessing(tmp_path / "none", labels()) == FoundPostprocessing()


def test_imported_said_kept_and_exported_again(tmp_path, capsys):
    folder = trained_folder(tmp_path / "theirs")
    write(folder / "crossval_results_folds_0" / "postprocessing.json", described_by(keep([1, 2]), keep([2])))
    import_nnunet(folder, tmp_path / "model")
    kept = tmp_path / "model" / "runs" / "3d_fullres" / "postprocessing.json"
    printed = capsys.readouterr().out
    found = "all foreground, large (crossval_results_folds_0/postprocessing.json)"
    assert f"only the largest component of: {found}" in printed
    assert "--postprocessing MODEL/runs/3d_fullres/postprocessing.json" in printed
    steps = load_postprocessing(kept)
    export_model(tmp_path / "model", tmp_path / "model.zip")
    inside = tmp_path / "model.zip" / kept.relative_to(tmp_path / "model")
    assert load_postprocessing(inside) == steps
    export_model(tmp_path / "model.zip", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "model.zip").read_bytes()
    assert trained_folds(tmp_path / "model.zip", "3d_fullres") == ["0"]
    capsys.readouterr()
    for model in ("model", "model.zip"):
        (exported,) = export_nnunet(tmp_path / model, tmp_path / f"export_{model}")
        assert f"-pp_pkl_file {exported}/postprocessing.pkl" in capsys.readouterr().out
        assert read_postprocessing(exported / "postprocessing.json", labels()) == steps
        functions, arguments = unpickled(exported / "postprocessing.pkl")
        assert functions == [(MODULE, FUNCTION), (MODULE, FUNCTION)]
        assert arguments == [keep([1, 2]), keep([2])]


def unpickled(path: Path) -> object:
    """What nnU-Net finds in a pickle of ours, with pairs (module, name) for the functions that only nnU-Net has."""

    class Named(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> tuple[str, str]:
            return module, name

    with path.open("rb") as file:
        return Named(file).load()


def test_a_postprocessing_that_is_not_known_is_a_note(tmp_path, capsys):
    folder = trained_folder(tmp_path / "theirs")
    write(folder / "crossval_results_folds_0" / "postprocessing.json", described_by(keep(1), function="open_holes"))
    import_nnunet(folder, tmp_path / "model")
    assert (
        "note: the postprocessing of 3d_fullres is not taken over (crossval_results_folds_0/postprocessing.json: it "
        "asks for 'open_holes'); apply it by nnUNetv2_apply_postprocessing\n"
    ) in capsys.readouterr().out
    assert not list((tmp_path / "model").rglob("postprocessing.json"))


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_pickle_alone_is_not_opened_and_the_remedy_is_told(tmp_path, capsys, is_zip):
    folder = trained_folder(tmp_path / "theirs")
    ran = tmp_path / "ran"
    path = write(folder / "crossval_results_folds_0" / "postprocessing.pkl", pickle.dumps(([Runs(ran)], [keep(1)])))
    source = Path(shutil.make_archive(str(tmp_path / "theirs"), "zip", folder.parent)) if is_zip else folder
    import_nnunet(source, tmp_path / "model")
    assert (
        "note: the postprocessing of 3d_fullres is not taken over (crossval_results_folds_0/postprocessing.pkl: it is "
        "a pickle, which could run code); put the postprocessing.json that nnU-Net wrote beside it there, too, and "
        "import again\n"
    ) in capsys.readouterr().out
    assert not list((tmp_path / "model").rglob("postprocessing.json"))
    assert not ran.exists()
    pickle.loads(path.read_bytes())  # what would have happened: otherwise this test proves nothing
    assert ran.exists()


def test_what_helped_nothing_is_not_kept(tmp_path):
    folder = trained_folder(tmp_path / "theirs")
    write(folder / "postprocessing.json", described_by())
    import_nnunet(folder, tmp_path / "model")
    assert not list((tmp_path / "model").rglob("postprocessing.json"))


def test_predict_applies_it_only_if_asked_and_says_so(tmp_path, capsys):
    """An image whose masks hold islands: with the option they are the masks without it, postprocessed."""
    import nibabel

    folder = trained_folder(tmp_path / "theirs")
    write(folder / "postprocessing.json", described_by(keep([1, 2]), keep(1)))
    import_nnunet(folder, tmp_path / "model")
    random = np.random.default_rng(3).normal(100, 80, (2, 12, 9, 7)).astype(np.float32)
    for index, image in enumerate(random):
        path = tmp_path / "images" / f"case_{index:04}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([0.5, 1.0, 5.0, 1])), path)
    kept = tmp_path / "model" / "runs" / "3d_fullres" / "postprocessing.json"
    how = {"device": "cpu", "precision": "fp32"}
    predict(tmp_path / "model", tmp_path / "images", tmp_path / "plain", **how)
    assert f"--postprocessing {kept} does" in capsys.readouterr().out
    predict(tmp_path / "model", tmp_path / "images", tmp_path / "kept", postprocessing=kept, **how)
    assert "only the largest component of: all foreground, small" in capsys.readouterr().out
    plain, found = (
        nibabel.load(tmp_path / name / "case.nii.gz").get_fdata().T.astype(int) for name in ("plain", "kept")
    )
    own = load_plan(tmp_path / "model").labels
    wanted = own.to_values(apply(own.to_classes(plain), Postprocessing.load(kept)))
    np.testing.assert_array_equal(found, wanted)
    assert (plain != found).any()
    packed = tmp_path / "model.zip"
    export_model(tmp_path / "model", packed)
    inside = packed / "runs" / "3d_fullres" / "postprocessing.json"
    predict(packed, tmp_path / "images", tmp_path / "plain", **how)
    printed = capsys.readouterr().out
    assert f"--postprocessing {inside} does" in printed
    assert "0 cases predicted, 1 were there" in printed  # the same model
    predict(packed, tmp_path / "images", tmp_path / "kept", postprocessing=inside, **how)
    assert "0 cases predicted, 1 were there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entries", "classes", "structure", "written"),
    [
        ({"background": 0, "a": 10, "b": 20}, (2,), "b", [2]),  # nnU-Net writes classes
        ({"background": 0, "a": 10, "b": 20}, (1, 2), FOREGROUND, [1, 2]),
        (REGIONS, (1, 2), FOREGROUND, [1, 2]),
        ({"background": 0, "whole": [5, 9], "core": [9]}, (2,), "core", [9]),  # regions are painted as they are
    ],
)
def test_the_values_that_nnunets_masks_hold_are_written(tmp_path, entries, classes, structure, written):
    described = dataset(entries)
    if 9 in described["labels"].get("core", ()):
        described["regions_class_order"] = [5, 9]
    weights = state(classes=3 if "a" in entries else 2)
    import_nnunet(trained_folder(tmp_path / "theirs", described=described, weights=weights), tmp_path / "model")
    steps = Postprocessing(steps=(KeepLargest(name=structure, classes=classes),))
    steps.save(tmp_path / "model" / "runs" / "3d_fullres" / "postprocessing.json")
    (exported,) = export_nnunet(tmp_path / "model", tmp_path / "export")
    assert json.loads((exported / "postprocessing.json").read_text())["postprocessing_kwargs"] == [keep(written)]
    import_nnunet(exported, tmp_path / "back")
    assert load_postprocessing(tmp_path / "back" / "runs" / "3d_fullres" / "postprocessing.json") == steps
