"""Whole cohorts: nothing lost, nothing twice, nothing half-written, whatever happens to a process, file or disk."""

import errno
import gzip
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from builders.data import blocks_case, make_images, mask_bytes, write_nifti
from builders.models import make_model
from builders.slow_prediction import start_slow_prediction
from builders.waiting import kill, run_together, wait_until
from segfw.base.files import partial_path
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset import finished_mask
from segfw.dataset.finished_mask import MASK_SHARE
from segfw.dataset.new_images import find_images
from segfw.images.formats import read_mask, write_labels
from segfw.inference import many_cases
from segfw.inference.output_folder import OutputFolder
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.verbs.predict import predict

CASES = 8
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), CASES)


@pytest.fixture(scope="module")
def undisturbed(model, images, tmp_path_factory) -> dict[str, bytes]:
    """The masks of a run that nothing happens to."""
    output = tmp_path_factory.mktemp("undisturbed")
    predict(model, images, output, device="cpu")
    found = mask_bytes(output)
    assert len(found) == CASES
    assert set(read_mask(output / "a.nii.gz").array.ravel().tolist()) == {0, 3, 7}
    return found


def undescribed(masks: dict[str, bytes]) -> dict[str, bytes]:
    """NIfTI without what the header says in words, which of a folder that no verb made is not by whom it is."""
    content = {name: gzip.decompress(mask) for name, mask in masks.items()}
    return {name: mask[:148] + mask[228:] for name, mask in content.items()}


def predicted(printed: str) -> int:
    return int(re.search(r"(\d+) cases? predicted, ", printed)[1])


def test_a_killed_run_goes_on_and_ends_with_the_same_files(model, images, undisturbed, tmp_path):
    process = start_slow_prediction(model, images, tmp_path, "slow=0.05")
    wait_until(lambda: len(mask_bytes(tmp_path)) >= 2, process)
    kill(process)
    before = mask_bytes(tmp_path)
    assert 2 <= len(before) < CASES
    records = {path.stem for path in (tmp_path / ".segfw").glob("[!.]*.json")}
    assert {name.removesuffix(".nii.gz") for name in before} <= records  # so that a replaced image is noticed
    assert before.items() <= undisturbed.items()  # what is there is whole
    for file in (tmp_path / "h.nii.gz", tmp_path / ".segfw" / "h.json"):
        ours = partial_path(file)
        half = ours.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
        half.write_bytes(b"half")  # as by one killed while it wrote
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    predict(model, images, tmp_path, device="cpu")
    assert mask_bytes(tmp_path) == undisturbed
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == times  # kept, not made again
    assert not list(tmp_path.rglob(".partial-*"))


def test_two_processes_share_the_cases_of_one_folder(model, images, undisturbed, tmp_path):
    processes = [start_slow_prediction(model, images, tmp_path, "slow=0.05") for _ in range(2)]
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    counts = [predicted(text) for text in printed]
    assert sum(counts) == CASES, "a case was done twice, or by nobody"
    assert mask_bytes(tmp_path) == undisturbed
    timings = json.loads((tmp_path / "timings.json").read_text())
    assert len(timings["cases"]) == CASES  # of both


def test_a_case_of_a_process_that_dies_is_done_by_the_other(model, images, undisturbed, tmp_path):
    """The first one hangs in its first case and is killed; the second one has waited for that case."""
    hanging = start_slow_prediction(model, images, tmp_path, "slow=600")
    # One is in the network of the first, and another one, whichever its threads came to, read ahead.
    wait_until(lambda: len(list((tmp_path / ".segfw").glob("?.lock"))) == 2, hanging)
    other = start_slow_prediction(model, images, tmp_path)
    wait_until(lambda: len(mask_bytes(tmp_path)) == CASES - 2, other)
    time.sleep(0.3)
    assert other.poll() is None
    kill(hanging)
    printed = other.communicate(timeout=600)[0]
    assert other.returncode == 0
    assert "waiting for 2 cases that other processes are at" in printed
    assert mask_bytes(tmp_path) == undisturbed


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone on Windows")
def test_ctrl_c_does_not_wait_for_the_cases_under_way(model, images, undisturbed, tmp_path):
    process = start_slow_prediction(model, images, tmp_path, "slow=0.2")
    wait_until(lambda: len(mask_bytes(tmp_path)) >= 1, process)
    before = len(mask_bytes(tmp_path))
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=600)[0]
    assert process.returncode == 130, printed
    after = mask_bytes(tmp_path)
    assert len(after) <= before + 1  # at most the one that was being written; two more had been read
    assert after.items() <= undisturbed.items()
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_truncated_file_is_named_and_the_others_are_done(model, undisturbed, tmp_path, capsys):
    images = make_images(tmp_path / "images", CASES)
    whole = (images / "c.nii.gz").read_bytes()
    (images / "c.nii.gz").write_bytes(whole[: len(whole) // 2])
    arguments = ["predict", str(model), str(images), str(tmp_path / "masks"), "--device", "cpu"]
    assert main(arguments) == 1
    assert re.search(r"1 case failed in prediction.*\n  c: .*c.nii.gz", capsys.readouterr().err)
    assert mask_bytes(tmp_path / "masks") == {name: mask for name, mask in undisturbed.items() if name != "c.nii.gz"}
    failed = json.loads((tmp_path / "masks" / "failures.json").read_text())["failed"]
    assert list(failed) == ["c"]
    (images / "c.nii.gz").write_bytes(whole)
    assert main(arguments) == 0
    assert mask_bytes(tmp_path / "masks") == undisturbed
    assert not (tmp_path / "masks" / "failures.json").exists()


@pytest.mark.parametrize("orientation", ["canonical", "as stored", "LPS"])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_orders_of_axes_are_told_once_where_the_model_sees_them(tmp_path, orientation, is_mixed, capsys):
    model = make_model(tmp_path / "model")
    plan = model / "plan.json"
    plan.write_text(plan.read_text().replace('"canonical"', f'"{orientation}"'))
    images = make_images(tmp_path / "images", 1)
    first = nibabel.load(images / "a.nii.gz")
    for name in ("b", "c"):
        affine = first.affine @ np.diag([-1, 1, 1, 1]) if is_mixed else first.affine
        nibabel.Nifti1Image(np.asarray(first.dataobj), affine).to_filename(images / f"{name}.nii.gz")
    for part in ("1/2", "2/2"):  # each tells of all
        assert (
            main(["predict", str(model), str(images), str(tmp_path / "masks"), "--device", "cpu", "--part", part]) == 0
        )
        said = capsys.readouterr().out
        note = "note: this model takes axes as they are stored, as nnU-Net does; they point to RAS (3 images)"
        warning = "stored in different orders, LAS (2 images), RAS (1 image): "
        assert said.count(note) == (orientation == "as stored" and not is_mixed)
        assert said.count(warning) == (orientation == "as stored" and is_mixed)
    assert len(mask_bytes(tmp_path / "masks")) == 3


def test_an_image_that_may_not_be_read_is_named_and_not_called_damaged(model, undisturbed, tmp_path, monkeypatch):
    images = make_images(tmp_path / "images", CASES)
    forbidden = images / "c.nii.gz"

    def open_if_allowed(self, *arguments, **keywords):
        if self == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return open(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", open_if_allowed)
    with pytest.raises(CasesFailed) as caught:
        predict(model, images, tmp_path / "masks", device="cpu")
    assert re.search(
        r"1 case failed.*\n  c: .*c.nii.gz: may not be read by this user .* not damaged", str(caught.value)
    )
    masks = {name: mask for name, mask in undisturbed.items() if name != "c.nii.gz"}
    assert mask_bytes(tmp_path / "masks") == masks


def test_parts_make_the_whole_in_any_order_and_at_the_same_time(model, images, undisturbed, tmp_path):
    predict(model, images, tmp_path / "two", device="cpu", part="2/3")
    assert sorted(mask_bytes(tmp_path / "two")) == ["b.nii.gz", "e.nii.gz", "h.nii.gz"]
    together = [threading.Thread(target=predict, args=(model, images, tmp_path / "all"), kwargs=options)
                for options in ({"device": "cpu", "part": f"{part}/3"} for part in (3, 1))]  # fmt: skip
    run_together(together)
    assert len(mask_bytes(tmp_path / "all")) == 5
    predict(model, images, tmp_path / "all", device="cpu", part="2/3")
    assert mask_bytes(tmp_path / "all") == undisturbed
    assert len((tmp_path / "all" / "timings.csv").read_text().splitlines()) == CASES + 1


def test_each_part_has_failures_of_its_own(model, tmp_path):
    images = make_images(tmp_path / "images", 3)
    whole = {path: path.read_bytes() for path in (images / "a.nii.gz", images / "b.nii.gz")}
    for path, content in whole.items():
        path.write_bytes(content[:100])
    for part in ("1/2", "2/2"):
        with pytest.raises(CasesFailed):
            predict(model, images, tmp_path / "masks", device="cpu", part=part)
    found = sorted((tmp_path / "masks").glob("failures*"))
    assert [path.name for path in found] == ["failures_part_1_of_2.json", "failures_part_2_of_2.json"]
    assert [list(json.loads(path.read_text())["failed"]) for path in found] == [["a"], ["b"]]
    for path, content in whole.items():
        path.write_bytes(content)
    predict(model, images, tmp_path / "masks", device="cpu")
    assert not list((tmp_path / "masks").glob("failures*"))


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/3"])
def test_what_is_no_part(part, model, images, tmp_path):
    with pytest.raises(UserError, match="^part is '.*'; give which part of how many, such as 3/8"):
        predict(model, images, tmp_path / "masks", device="cpu", part=part)
    assert not (tmp_path / "masks").exists()


def test_an_image_that_was_replaced_is_predicted_again(model, tmp_path, capsys):
    images = make_images(tmp_path / "images", 3)
    predict(model, images, tmp_path / "masks", device="cpu")
    before = mask_bytes(tmp_path / "masks")
    write_nifti(images / "b.nii.gz", blocks_case(33, (16, 15, 12))[0])
    capsys.readouterr()
    predict(model, images, tmp_path / "masks", device="cpu")
    printed = capsys.readouterr().out
    assert "1 image changed since they were predicted, and are predicted again: b" in printed
    assert "1 case predicted, 2 were there" in printed
    after = mask_bytes(tmp_path / "masks")
    assert [name for name in sorted(after) if after[name] != before[name]] == ["b.nii.gz"]
    assert read_mask(tmp_path / "masks" / "b.nii.gz").array.shape == (1, 12, 15, 16)


def test_no_mask_of_an_image_that_was_replaced_by_a_broken_one_stays(model, tmp_path):
    images = make_images(tmp_path / "images", 2)
    predict(model, images, tmp_path / "masks", device="cpu")
    (images / "b.nii.gz").write_bytes(b"broken")
    with pytest.raises(CasesFailed):
        predict(model, images, tmp_path / "masks", device="cpu")
    assert sorted(mask_bytes(tmp_path / "masks")) == ["a.nii.gz"]


def test_two_devices_share_one_list(model, images, undisturbed, tmp_path):
    predict(model, images, tmp_path, device=("cpu", "cpu"))
    assert mask_bytes(tmp_path) == undisturbed


@pytest.mark.parametrize("readers", [1, 2])
def test_a_stage_holds_one_case_at_a_time_and_stages_overlap(
    model, images, undisturbed, tmp_path, monkeypatch, readers
):
    """Counted while they run: never two of a device in a stage, but that two are read for a GPU, and stages overlap."""
    lock = threading.Lock()
    inside = []
    most = {}
    together = set()

    def counting(name, function):
        def counted(*args, **kwargs):
            with lock:
                inside.append(name)
                most[name] = max(most.get(name, 0), inside.count(name))
                together.update((name, other) for other in inside)
            time.sleep(0.03)
            try:
                return function(*args, **kwargs)
            finally:
                with lock:
                    inside.remove(name)

        return counted

    for name in ("_read", "_classes", "_write"):
        monkeypatch.setattr(many_cases.CasePipeline, name, counting(name, getattr(many_cases.CasePipeline, name)))
    predictor = Predictor.of(load_model(model), device="cpu")
    folder = OutputFolder(path=tmp_path)
    cases = find_images(images, predictor.plan.channels)
    done = many_cases.predict_cases([predictor], cases, folder, readers=readers)
    assert (done.done, done.failures) == (CASES, [])
    assert most == {"_read": readers, "_classes": 1, "_write": 1}
    assert undescribed(mask_bytes(tmp_path)) == undescribed(undisturbed)
    assert ("_read", "_classes") in together | {pair[::-1] for pair in together}
    assert ("_write", "_classes") in together | {pair[::-1] for pair in together}


def test_a_second_image_is_read_where_the_largest_so_far_would_fit_beside():
    free = [10**6]
    readers = many_cases.Readers(2, lambda: free[0])
    assert readers._has_room()
    with readers:
        assert not readers._has_room()  # nothing is known yet of what an image takes
        readers.saw(2 * 10**5)
        assert readers._has_room()
        readers.saw(3 * 10**5)  # and its copies take more than is free
        assert not readers._has_room()
        free[0] = 2 * 10**6
        with readers:
            assert not readers._has_room()  # for a third
    assert readers._has_room()


def test_a_gpu_has_two_readers_and_a_cpu_one(tmp_path):
    for name, readers in (("cuda", 2), ("mps", 1), ("cpu", 1)):
        predictor = SimpleNamespace(device=torch.device(name))
        assert many_cases.CasePipeline(predictor, OutputFolder(path=tmp_path)).readers == readers


def test_a_full_disk_ends_the_work_and_names_the_case(model, images, undisturbed, tmp_path, monkeypatch, capsys):
    written = []

    def filling(path, *args, **said):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_labels(path, *args, **said)
        written.append(path.name)

    monkeypatch.setattr(finished_mask, "write_labels", filling)
    arguments = ["predict", str(model), str(images), str(tmp_path), "--device", "cpu"]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert re.search(r"cases? failed in prediction, [234] cases were not begun, the rest are done", told), told
    assert re.search(r"\n  [a-h]: .*the disk is full .*; free some space and call the same command again", told)
    assert sorted(mask_bytes(tmp_path)) == sorted(written)
    assert not list(tmp_path.rglob(".partial-*"))
    monkeypatch.undo()
    assert main(arguments) == 0
    assert mask_bytes(tmp_path) == undisturbed


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on a file's size on Windows")
def test_a_limit_on_the_size_of_files_is_met_as_a_full_disk(model, tmp_path):
    images = make_images(tmp_path / "images", 3)
    write_nifti(images / "b.nii.gz", blocks_case(5, (90, 80, 30))[0])
    process = start_slow_prediction(model, images, tmp_path / "masks", "file_limit=2000", "formats=.nii")
    printed = process.communicate(timeout=600)[0]
    assert process.returncode == 1, printed
    assert "the disk is full ([Errno 27] File too large" in printed
    assert not list((tmp_path / "masks").rglob(".partial-*"))
    assert not list((tmp_path / "masks").glob("*.nii"))
    predict(model, images, tmp_path / "masks", device="cpu", formats=(".nii",))
    assert len(list((tmp_path / "masks").glob("*.nii"))) == 3


def test_too_little_room_is_said_before_the_work(model, images, tmp_path, monkeypatch, capsys):
    from segfw.inference import disk_space as space

    largest = max(path.stat().st_size for path in images.iterdir()) * MASK_SHARE
    usage = type(space.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: usage(10**12, 10**12, largest + 1))
    with pytest.raises(UserError, match="are free, too few for even one case; free some space or write to another"):
        predict(model, images, tmp_path / "masks", device="cpu")
    assert not mask_bytes(tmp_path / "masks")
    cases = find_images(images, load_model(model).plan.channels)
    space.require_space(cases, OutputFolder(path=tmp_path / "masks"), spare_bytes=0)
    assert "GB are free, and 8 cases may take" in capsys.readouterr().out
    monkeypatch.setattr(
        space.shutil, "disk_usage", lambda _: usage(10**12, 10**12, largest + 1 + space.FULL_BELOW_BYTES)
    )
    predict(model, images, tmp_path / "masks", device="cpu")
    assert len(mask_bytes(tmp_path / "masks")) == CASES
