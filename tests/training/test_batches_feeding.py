"""Feeding: where cases are kept, what is read from files, and what the trainer waits for."""

import threading
import time

import blosc2
import numpy as np
import pytest
import torch

from segfw.base.array_files import open_array
from segfw.base.device_timer import DeviceTimer
from segfw.base.records import GIGABYTE, UserError
from segfw.grid import store
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing, PreprocessRecord
from segfw.grid.store import CaseArrays, StoredCase, stored_bytes
from segfw.images.geometry import Geometry
from segfw.training import feeding
from segfw.training.batches import Batches, CutBatch, cut_padded
from segfw.training.feeding import BATCHES_AHEAD, Feeder, on_device, open_cases, spare_device_bytes

HOW = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0), normalization=(Normalization(kind="zscore"),))
CUDA = torch.device("cuda")


def stored(folder, case_id="A", shape=(192, 40, 50)):
    """Writes one preprocessed case of three chunks and returns its arrays."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    image, classes = rng.normal(size=(1, *shape)).astype(np.float16), rng.integers(0, 3, shape).astype(np.uint8)
    for part, array in (("image", image), ("classes", classes), ("foreground", np.arange(5, dtype=np.uint32))):
        store.save_array(folder / f"{case_id}.{part}.b2nd", array)
    grid = Geometry(affine=tuple(map(tuple, np.eye(4))), shape=shape)
    record = PreprocessRecord(
        original=grid,
        box=tuple((0, n) for n in shape),
        axis_order=(0, 1, 2),
        cropped_shape=shape,
        cropped_spacing_mm=(1, 1, 1),
        shape=shape,
        spacing_mm=(1, 1, 1),
    )
    StoredCase(
        id=case_id, preprocessing=HOW, record=record, sources=(), label_values=(0, 1, 2), foreground_counts={"1": 5}
    ).save(folder / f"{case_id}.json")
    return image, classes


# Where cases are kept


@pytest.mark.parametrize("free, kind", [(1e12, np.ndarray), (1e6, blosc2.NDArray)])
def test_cases_are_kept_in_memory_where_they_fit_and_are_the_same_on_disk(tmp_path, monkeypatch, free, kind):
    image, classes = stored(tmp_path)
    monkeypatch.setattr(feeding, "free_memory_bytes", lambda: free)
    (case,) = open_cases(tmp_path, ["A"], HOW, torch.device("cpu"))
    assert isinstance(case.image, kind)
    box = cut_padded(case.image, (60, 30, -4), (9, 20, 30))
    assert torch.equal(box, cut_padded(image, (60, 30, -4), (9, 20, 30)))
    mask = cut_padded(case.classes, (60, 3, 4), (9, 8, 7), -1)
    assert torch.equal(mask, cut_padded(classes, (60, 3, 4), (9, 8, 7), -1))


def test_a_case_of_another_plan_is_refused(tmp_path):
    stored(tmp_path)
    other = HOW.model_copy(update={"spacing_mm": (2.0, 1.0, 1.0)})
    with pytest.raises(UserError, match="A was preprocessed for another plan"):
        open_cases(tmp_path, ["A"], other)


def test_as_many_cases_as_fit_are_kept_in_memory_and_the_others_read_from_disk(tmp_path, monkeypatch):
    stored(tmp_path)
    size = sum(stored_bytes(tmp_path, ["A"]))

    def kept(free_bytes: float, sharers: int = 1) -> list[bool]:
        monkeypatch.setattr(feeding, "free_memory_bytes", lambda: free_bytes)
        cases = open_cases(tmp_path, ["A"] * 3, HOW, sharers=sharers)
        return [isinstance(case.image, np.ndarray) for case in cases]

    assert kept(3.01 * size / feeding.MEMORY_SHARE) == [True, True, True]
    assert kept(2.01 * size / feeding.MEMORY_SHARE) == [True, True, False]
    assert kept(2.01 * size / feeding.MEMORY_SHARE, sharers=2) == [True, False, False]
    assert kept(0.99 * size / feeding.MEMORY_SHARE) == [False, False, False]


def test_a_gpu_keeps_cases_that_leave_room_for_the_step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIGABYTE, 12 * GIGABYTE))
    assert spare_device_bytes(torch.device("cpu"), 0) == 0
    assert spare_device_bytes(CUDA, 1) == 2.5 * GIGABYTE
    assert spare_device_bytes(CUDA, 7) == pytest.approx(1.0 * GIGABYTE)
    assert spare_device_bytes(CUDA, 9) < 0
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIGABYTE)
    assert spare_device_bytes(CUDA, 1, 6) == 1.0 * GIGABYTE  # 4 are left to it, not 10
    assert spare_device_bytes(CUDA, 1, 16) == 2.5 * GIGABYTE


def test_cases_that_fit_are_put_on_the_gpu_once(tmp_path, monkeypatch):
    stored(tmp_path)
    monkeypatch.setattr(feeding, "spare_device_bytes", lambda *given: 1e9)
    (case,) = open_cases(tmp_path, ["A"], HOW, torch.device("meta"))
    assert case.image.device.type == case.classes.device.type == "meta"
    assert isinstance(case.foreground[1], np.ndarray)


def test_batches_from_tensors_equal_those_from_arrays():
    """The path of cases that lie on a GPU, on the CPU."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (12, 20, 16)).astype(np.uint16)
    case = CaseArrays(image=rng.normal(size=(2, 12, 20, 16)).astype(np.float16), classes=classes, foreground={})
    same = {
        "patch_size": (8, 12, 10),
        "batch_size": 3,
        "seed": 1,
        "stream": 0,
        "mirror_axes": (0, 2),
        "foreground_share": 0,
        "swapped": {0: ((1, 2),)},
        "zero_outside": (1,),
    }
    for augmentation in ("device", "reference", "none"):
        arrays, tensors = (
            Batches(cases=[kept], augmentation=augmentation, **same)
            for kept in (case, on_device(case, torch.device("cpu")))
        )
        for step in range(4):
            for one, other in zip(*(b.finish(b.cut(step), torch.device("cpu")) for b in (arrays, tensors))):
                assert torch.equal(one, other)


# What is read


def test_only_the_chunks_of_the_box_are_read(tmp_path):
    """The middle of the file is broken, where the second of three chunks lies: boxes of the first do not notice."""
    image, _ = stored(tmp_path)
    path = tmp_path / "A.image.b2nd"
    whole = path.read_bytes()
    third = len(whole) // 3
    path.write_bytes(whole[: third + 1000] + bytes(third) + whole[2 * third + 1000 :])
    opened = open_array(path)  # without looking at the checksum, as a case is read once it was found whole
    np.testing.assert_array_equal(cut_padded(opened, (40, 5, 6), (20, 30, 30)).numpy(), image[:, 40:60, 5:35, 6:36])
    assert (cut_padded(opened, (90, 5, 6), (20, 30, 30)).numpy() != image[:, 90:110, 5:35, 6:36]).any()


def test_the_box_that_is_cut_is_the_one_that_the_warp_needs(monkeypatch):
    """No more than the patch for one that is not warped, and never more than its largest scale and turn can reach."""
    asked = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            asked.append(tuple(part.stop - part.start for part in key[-3:]))
            return np.asarray(self)[key]

    image = np.zeros((1, 60, 60, 60), np.float16).view(Watched)
    case = CaseArrays(image=image, classes=np.zeros((60, 60, 60), np.uint8), foreground={})
    batches = Batches(
        cases=[case], patch_size=(12, 12, 12), batch_size=1, seed=0, stream=0, augmentation="device", mirror_axes=(0,),
        foreground_share=0,
    )  # fmt: skip
    for step in range(30):
        patch = batches.cut(step).patches[0]
        if not patch.spatial.is_warped:
            assert asked[-1] == (12, 12, 12)
        assert all(read <= box for read, box in zip(asked[-1], patch.image_czyx.shape[1:]))
        assert max(asked[-1]) <= 12 * 1.4 * 1.9


# Threads


def empty_batch(step):
    return CutBatch(step=step, patches=())


def test_batches_come_in_order_and_a_few_ahead():
    started = []

    def cut(step):
        started.append(step)
        time.sleep(0.02 if step % 2 else 0)  # odd ones are finished after the even ones that follow
        return empty_batch(step)

    feeder = Feeder(cut, 7, workers=3)
    steps = [batch.step for batch, _ in zip(feeder, range(6))]
    feeder.close()
    assert steps == [7, 8, 9, 10, 11, 12]
    assert max(started) <= 12 + BATCHES_AHEAD


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now_s = 0.0
        self.is_watched = False
        self.looked_at = threading.Event()

    def read(self):
        now_s = self.now_s
        if self.is_watched:
            self.looked_at.set()
        return now_s


def test_waiting_is_measured_and_is_nothing_where_batches_are_ready():
    clock = Clock()

    def cut(step):
        if step == 1:  # made only when the trainer has begun to wait for it
            clock.looked_at.wait(5)
            clock.now_s += 3.0
        return empty_batch(step)

    feeder = Feeder(cut, 0, workers=1, now_s=clock.read)
    coming = iter(feeder)
    next(coming)
    assert feeder.stalled_s == 0
    clock.is_watched = True
    next(coming)
    assert feeder.stalled_s == 3
    clock.now_s += 10  # the step, during which the feeder is ahead
    next(coming)
    assert feeder.stalled_s == 3
    feeder.close()


def test_an_error_of_a_thread_reaches_the_trainer():
    def cut(step):
        raise UserError("A.image.b2nd: cannot be read")

    feeder = Feeder(cut, 0)
    with pytest.raises(UserError, match="cannot be read"):
        next(iter(feeder))
    feeder.close()


def test_a_timer_on_the_cpu_adds_up_what_is_inside():
    clock = Clock()
    watch = DeviceTimer(torch.device("cpu"), clock.read)
    for _ in range(2):
        with watch:
            clock.now_s += 2
        clock.now_s += 50
    assert watch.read_s() == 4
    assert watch.read_s() == 0
