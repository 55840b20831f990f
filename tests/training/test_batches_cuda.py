"""The path of CUDA, with stand-ins for its streams and events, and on PyTorch's device without data."""

import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segfw.base.device_timer import DeviceTimer
from segfw.grid.store import CaseArrays
from segfw.training import augment
from segfw.training.batches import Batches, CutBatch, CutPatch
from segfw.training.feeding import Feeder

CUDA = torch.device("cuda")


class FakeCuda:
    """Notes what is asked of streams and events, in order and by thread."""

    def __init__(self, monkeypatch):
        self.log, self.ticks, self.current = [], itertools.count(), threading.local()
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.stream("copies"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.stream("training"))
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: self.event())

    def stream(self, name):
        return SimpleNamespace(
            name=name,
            record_event=lambda: self.log.append(("recorded on", name)) or "arrived",
            wait_event=lambda event: self.log.append((name, "waits for", event)),
        )

    def entered(self, stream):
        outer = self

        class Context:
            def __enter__(self):
                outer.current.name = stream.name

            def __exit__(self, *_):
                outer.current.name = "training"

        return Context()

    def event(self):
        made = SimpleNamespace(at=None)
        made.record = lambda stream: setattr(made, "at", next(self.ticks))
        made.synchronize = lambda: self.log.append("synchronised")
        made.elapsed_time = lambda later: 1000 * (later.at - made.at)
        return made


def test_copies_run_on_a_stream_of_their_own_and_the_trainers_stream_waits_for_them(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    used = []

    class FakeBatch:
        patches = (SimpleNamespace(tensors=lambda: [SimpleNamespace(record_stream=lambda s: used.append(s.name))] * 2),)

        def to(self, device):
            cuda.log.append(("copied to", device.type, "on", cuda.current.name, threading.current_thread().name[:7]))
            return self

    feeder = Feeder(lambda step: FakeBatch(), 0, workers=1, device=CUDA)
    coming = iter(feeder)
    next(coming)
    assert cuda.log[0] == ("copied to", "cuda", "on", "copies", "batches")
    assert cuda.log[1] == ("recorded on", "copies")
    assert ("training", "waits for", "arrived") in cuda.log
    assert used == ["training", "training"]  # memory is not given to others before the trainer's stream is done
    feeder.close()


def test_boxes_go_to_cuda_through_pinned_memory_without_waiting(monkeypatch):
    moves = []

    class Host:
        is_cuda, device = False, torch.device("cpu")

        def pin_memory(self):
            moves.append("pinned")
            return self

        def to(self, device, non_blocking=False):
            moves.append((device.type, non_blocking))
            return SimpleNamespace(is_cuda=True, device=device)

    patch = CutPatch(
        case=0, image_czyx=Host(), classes_zyx=Host(), previous_zyx=None, spatial=None, intensity=None, seed=0
    )
    batch = CutBatch(step=0, patches=(patch,)).to(CUDA)
    assert moves == ["pinned", ("cuda", True)] * 2
    assert batch.to(CUDA).patches == batch.patches  # not once more
    assert moves == ["pinned", ("cuda", True)] * 2


@pytest.mark.parametrize("patch", [(8, 12, 10), (1, 20, 16)])
def test_finishing_a_batch_never_asks_the_device_for_a_value(monkeypatch, patch):
    """On PyTorch's device without data asking is an error; on CUDA it would stop the host until the device is done."""
    monkeypatch.setattr(augment, "_add_noise", lambda image, stds, seeds: image)  # there are no numbers to draw there
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (20, 24, 22)).astype(np.uint8)
    image = rng.normal(size=(2, 20, 24, 22)).astype(np.float16)
    case = CaseArrays(image=image, classes=classes, foreground={}, previous=classes)
    batches = Batches(
        cases=[case], patch_size=patch, batch_size=6, seed=0, stream=0, augmentation="device", mirror_axes=(0, 1, 2),
        foreground_share=0, elastic=True, zero_outside=(1,), previous_classes=3,
    )  # fmt: skip
    warped = 0
    for step in range(8):
        cut = batches.cut(step)
        warped += sum(patch.spatial.is_warped for patch in cut.patches)
        image, classes = batches.finish(cut, torch.device("meta"))
        assert (image.device.type, image.shape) == ("meta", (6, 4, *patch))
        assert (classes.device.type, classes.dtype) == ("meta", torch.int64)
    assert warped > 8


def test_a_stopwatch_on_cuda_waits_only_when_it_is_read(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    watch = DeviceTimer(CUDA)
    for _ in range(3):
        with watch:
            pass
    assert cuda.log == []
    assert watch.read_s() == 3  # one second from each event to the next
    assert cuda.log == ["synchronised"] * 3
    assert watch.read_s() == 0
