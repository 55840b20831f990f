"""nnU-Net's postprocessing taken over and given: both files say the same, and nothing in them is run."""

import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from small_nnunet import LABELS, REGIONS, Runs, dataset, state, trained_folder

from segfw.base.records import UserError
from segfw.model.load import load_plan, trained_folds
from segfw.model.postprocess import FOREGROUND, KeepLargest, Postprocessing, apply, load_postprocessing
from segfw.nnunet.postprocessing_files import (
    FUNCTION,
    MODULE,
    UnknownError,
    find_postprocessing,
    read_postprocessing,
)
from segfw.verbs.export import export_model
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import described, import_nnunet
from segfw.verbs.predict import predict

PATH = f"{MODULE}\n{FUNCTION}\n".encode()


def theirs() -> bytes:
    """A pickle as nnU-Net writes it, whose labels are NumPy integers: all labels, then the region or label 2."""
    small, large = np.int64(1), np.int64(2)
    arguments = pickle.dumps([keep([small, large]), keep((large,))], protocol=3)[2:-1]
    return b"\x80\x03](c" + PATH + b"c" + PATH + b"e" + arguments + b"\x86."


def labels(entries=LABELS):
    return described(dataset(entries), Path("dataset.json"))[1]


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
    own = steps.model_dump_json()
    assert load_postprocessing(write(tmp_path / name, own)) == steps
    selection = json.dumps({"configurations": ["2d"], "postprocessing": json.loads(own), "cases": 3})
    assert load_postprocessing(write(tmp_path / name, selection)) == steps
    for content, why in (
        (described_by(keep([1])), r"is nnU-Net's own; import its model first and give the MODEL.runs.CONFIGURATION"),
        ("[1]", "holds no steps; give a selection.json"),
        ("{", "holds no steps"),
        ('{"steps": [1]}', "field 'steps.0'"),
        ('{"configurations": [], "postprocessing": {"steps": 1}}', "postprocessing: field 'steps'"),
    ):
        with pytest.raises(UserError, match=f"{name}: {why}"):
            load_postprocessing(write(tmp_path / name, content))
    with pytest.raises(UserError, match="a.pkl: is nnU-Net's own"):
        load_postprocessing(write(tmp_path / "a.pkl", theirs()))
    with pytest.raises(UserError, match="none.json: no such file"):
        load_postprocessing(tmp_path / "none.json")


@pytest.mark.parametrize("entries", [LABELS, REGIONS])
def test_both_files_say_the_same(tmp_path, entries):
    """Labels have the values 2 (large) and 1 (small); of the regions 'core' is the label 2."""
    own = labels(entries)
    from_json = read_postprocessing(write(tmp_path / "a.json", described_by(keep([1, 2]), keep([2]))), own)
    assert from_json == read_postprocessing(write(tmp_path / "a.pkl", theirs()), own)
    assert from_json.steps[0].name == FOREGROUND
    assert from_json.steps[1] == KeepLargest(name="core" if entries is REGIONS else "large", classes=(2,))


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


def test_a_pickle_that_would_run_a_command_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    path = write(tmp_path / "a.pkl", pickle.dumps(([Runs(ran)], [keep(1)])))
    with pytest.raises(UnknownError, match=r"names (posix|nt)\.system"):
        read_postprocessing(path, labels())
    assert not ran.exists()
    pickle.loads(path.read_bytes())  # what would have happened: otherwise this test proves nothing
    assert ran.exists()


def test_the_known_function_cannot_be_called_by_a_pickle(tmp_path):
    called = b"\x80\x02(c" + PATH + b"](" + pickle.dumps(keep(1), protocol=2)[2:-1] + b"e\x85R]\x86."
    with pytest.raises(UnknownError, match="not as nnU-Net writes it"):
        read_postprocessing(write(tmp_path / "a.pkl", called), labels())


def nested(depth: int, share: bytes) -> bytes:
    """A pickle of one step of a label in ``depth`` tuples of two, each twice the one before, by ``share``."""
    doubled = b"".join(share.replace(b"N", bytes([level])) for level in range(depth))
    return b"\x80\x02](c" + PATH + b"e](}X\x11\x00\x00\x00labels_or_regionsK\x01" + doubled + b"se\x86."


@pytest.mark.parametrize("share", [b"qNhN\x86", b"2\x86"])  # kept under a number and taken from there, or doubled
def test_a_pickle_of_hundred_bytes_cannot_say_a_number_of_labels_without_end(tmp_path, share):
    once = read_postprocessing(write(tmp_path / "a.pkl", nested(1, b"qNK\x01\x86")), labels())
    assert once.text == "small"
    assert pickle.loads(nested(2, share).replace(PATH, b"builtins\nprint\n"))[1][0] == keep(((1, 1), (1, 1)))
    with pytest.raises(UnknownError, match="it says one list twice|not as nnU-Net writes it"):
        read_postprocessing(write(tmp_path / "a.pkl", nested(60, share)), labels())


def test_a_pickle_of_ten_bytes_cannot_take_memory_without_end(tmp_path):
    """An object kept under a number: an unpickler with an array would make room for all numbers below, here 2^22."""
    path = write(tmp_path / "a.pkl", b"\x80\x02]r\x00\x00\x40\x00.")
    tracemalloc.start()
    try:
        with pytest.raises(UnknownError, match="not as nnU-Net writes it"):
            read_postprocessing(path, labels())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.reset_peak()
        pickle.loads(path.read_bytes())
        assert tracemalloc.get_traced_memory()[1] > 30_000_000  # otherwise this test proves nothing
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (described_by(keep(1), function="open_holes"), "asks for 'open_holes'"),
        (described_by(keep(1, background_label=2)), "background_label"),
        (described_by(keep(7)), r"labels \[7\], which are no structure"),
        (described_by(keep(True)), "holds the label True"),
        (described_by(keep("1")), "holds the label '1'"),
        ('{"postprocessing_fns": ["x"], "postprocessing_kwargs": []}', "ValueError"),
        (described_by(keep(1)).replace("1", "[" * 500 + "1" + "]" * 500), "RecursionError"),
        (described_by(keep("x" * 500)), r"holds the label 'x{12}\.\.\.x{13}'$"),
        ("{", "JSONDecodeError"),
        ("[1]", "TypeError"),
    ],
)
def test_what_is_unknown_is_named(tmp_path, content, why):
    with pytest.raises(UnknownError, match=why):
        read_postprocessing(write(tmp_path / "a.json", content), labels())


def test_the_most_folds_count_and_the_pickle_only_without_a_readable_json(tmp_path):
    write(tmp_path / "crossval_results_folds_0" / "postprocessing.json", described_by(keep(1)))
    whole = write(tmp_path / "crossval_results_folds_0_1_2" / "postprocessing.json", described_by(keep(2)))
    assert find_postprocessing(tmp_path, labels())[0].text == "large"
    write(whole.with_suffix(".pkl"), theirs())
    assert find_postprocessing(tmp_path, labels())[0].text == "large"
    whole.write_text("{")
    found, where = find_postprocessing(tmp_path, labels())
    assert (found.text, where) == ("all foreground, large", "crossval_results_folds_0_1_2/postprocessing.pkl")
    assert find_postprocessing(whole.parent, labels())[1] == "postprocessing.pkl"
    whole.with_suffix(".pkl").write_bytes(b"")  # what fewer folds say is not what all of them do
    found, why = find_postprocessing(tmp_path, labels())
    assert (found, why.count("crossval_results_folds_0_1_2/")) == (None, 2)
    assert find_postprocessing(tmp_path / "none", labels()) == (None, "")


def test_imported_said_kept_and_exported_again(tmp_path, capsys):
    folder = trained_folder(tmp_path / "theirs")
    write(folder / "crossval_results_folds_0" / "postprocessing.pkl", theirs())
    import_nnunet(folder, tmp_path / "model")
    kept = tmp_path / "model" / "runs" / "3d_fullres" / "postprocessing.json"
    said = capsys.readouterr().out
    assert "only the largest component of: all foreground, large (crossval_results_folds_0/postprocessing.pkl)" in said
    assert "--postprocessing MODEL/runs/3d_fullres/postprocessing.json" in said
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
        for name in ("postprocessing.json", "postprocessing.pkl"):
            assert read_postprocessing(exported / name, labels()) == steps


def test_a_postprocessing_that_is_not_known_is_a_note(tmp_path, capsys):
    folder = trained_folder(tmp_path / "theirs")
    write(folder / "crossval_results_folds_0" / "postprocessing.pkl", pickle.dumps(([print], [keep(1)])))
    import_nnunet(folder, tmp_path / "model")
    assert "is not taken over (crossval_results_folds_0/postprocessing.pkl: it names builtins.print)" in (
        capsys.readouterr().out
    )
    assert not list((tmp_path / "model").rglob("postprocessing.json"))


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
    said = capsys.readouterr().out
    assert f"--postprocessing {inside} does" in said
    assert "0 cases predicted, 1 were there" in said  # the same model
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
