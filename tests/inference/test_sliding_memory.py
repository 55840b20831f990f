"""What a prediction does where memory is short, and tiles of one value, which are run once."""

from functools import partial
from pathlib import Path

import pytest
import torch

from builders.networks import spec
from builders.sliding import blurred, slow_oracle, unet
from segfw.base.records import GIGABYTE, UserError
from segfw.grid.slabs import dense
from segfw.inference import accumulator as accumulator_module
from segfw.inference import host_memory
from segfw.inference import sliding_window as sliding_window_module
from segfw.inference.accumulator import Accumulator, moved_to_host
from segfw.inference.host_memory import (
    FLOAT16,
    FLOAT32,
    ON_DISK,
    LearnedLimits,
    activation_bytes,
    allocate,
    choose_storage,
    storage_note,
)
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.inference.tile_runner import TileRunner, TileTooLarge, batch_size
from segfw.inference.tiles import TiledImage, tile_count
from segfw.networks import build_network
from segfw.planning.memory import StepCounter


class Counting:
    """Counts the samples that a network is given, and has memory for ``most`` of them at once."""

    def __init__(self, network, most: int = 10**6) -> None:
        self.network = network
        self.most = most
        self.samples = 0
        self.calls = []

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(tiles))
        if len(tiles) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        self.samples += len(tiles)
        return self.network(tiles)


@pytest.mark.parametrize("axes, with_previous", [((2,), False), ((), True)])
def test_tiles_of_one_value_are_run_once_and_give_exactly_the_same(axes, with_previous):
    image = torch.full((1, 40, 16, 18), -1.5)
    image[:, 12:20, 6:12, 8:15] = torch.randn(1, 8, 6, 7)
    image[:, 32:] = 2.0
    previous = torch.zeros(40, 16, 18, dtype=torch.uint8) if with_previous else None
    if with_previous:
        previous[14:16, 7:9, 9:11] = 1
        previous[30:, :, :10] = 2
    channels = 3 if with_previous else 1
    network = unet(in_channels=channels)

    def run(counting):
        members = summands_of([counting], axes)
        options = {"previous_zyx": previous, "previous_classes": channels}
        return dense(sliding_window(image, members, (8, 16, 16), limits=LearnedLimits(copies=1), **options))

    saving = Counting(network)
    plain = Counting(network)
    found = run(saving)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TiledImage, "constant", lambda self, tile: None)
        wanted = run(plain)
    assert torch.equal(found, wanted)
    copies = 2 ** len(axes)
    assert plain.samples == 9 * 2 * copies  # nine layers of two tiles
    # Layers 2 to 4 hold noise and 7 the step between the values, or in the cascade what was found from slice 30 on,
    # which ends in the upper tile; of the others each value is run once.
    assert saving.samples == (13 if with_previous else 10) * copies


def test_what_does_not_fit_is_halved_until_it_does_and_remembered(capsys):
    image = torch.rand(2, 30, 20, 13)
    wanted = slow_oracle(image, [blurred], (8, 8, 8), axes=(0,))
    limits = LearnedLimits(copies=12)
    network = Counting(blurred, most=2)
    members = summands_of([network], (0,))
    found = dense(sliding_window(image, members, (8, 8, 8), limits=limits))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert network.calls[:4] == [12, 6, 2, 2]  # six, then three copies: one tile with its mirror image
    assert network.samples == 2 * tile_count((30, 20, 13), (8, 8, 8), 0.5)
    assert "out of memory: networks get 3 tiles at a time from now on" in capsys.readouterr().out
    refused = len(network.calls)
    dense(sliding_window(image, members, (8, 8, 8), limits=limits))
    assert max(network.calls[refused:]) <= 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("axes", [(), (0, 2)])
def test_on_a_gpu_batches_have_two_sizes(axes, monkeypatch):
    """For each of them cuDNN tries its algorithms once; air is run once, and leaves no holes in batches."""
    image = torch.full((2, 40, 30, 13), -1.0)
    image[:, :, 8:] = torch.rand(2, 40, 22, 13)
    members = summands_of([blurred], axes)
    wanted = dense(sliding_window(image, members, (8, 8, 8), limits=LearnedLimits(copies=12)))
    network = Counting(blurred)
    monkeypatch.setattr(sliding_window_module, "TileRunner", partial(TileRunner, has_few_sizes=True))
    members = summands_of([network], axes)
    found = dense(sliding_window(image, members, (8, 8, 8), limits=LearnedLimits(copies=12)))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(set(network.calls)) <= 2
    assert max(network.calls) == 12
    run = tile_count((40, 30, 13), (8, 8, 8), 0.5) * 2 ** len(axes)
    assert network.samples < 1.35 * run  # empty tiles are few


@pytest.mark.parametrize("tiles, full, size", [(1, 4, 1), (2, 4, 4), (3, 4, 4), (8, 32, 8), (9, 32, 32), (1, 1, 1)])
def test_the_sizes_of_batches(tiles, full, size):
    assert batch_size(tiles, full) == size


def test_an_image_or_slices_of_it_are_kept_on_the_device_where_they_are_small_beside_what_is_free(monkeypatch):
    """The whole of ten slices where they are a twentieth; else the eight of a layer of tiles, each layer's in turn."""
    image = torch.rand(2, 10, 9, 8)
    moved = []
    real = torch.Tensor.to

    def noted(tensor, *where, **how):
        moved.append((tuple(tensor.shape), where))
        return real(tensor, "cpu", *[each for each in where if isinstance(each, torch.dtype)])

    monkeypatch.setattr(torch.Tensor, "to", noted)
    cuda = torch.device("cuda")
    free = [image.nbytes * 20]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], free[0]))
    tiled = TiledImage(image, (8, 8, 8), 0.5)
    (first, *_), (last, *_) = tiled.layers()
    for _ in range(2):
        tiled.keep_on(cuda, 0, 8)
        tiled.keep_on(cuda, 2, 10)
    assert moved == [((2, 10, 9, 8), (cuda,))]
    for tile in (first, last):
        z = tile.start[0]
        assert torch.equal(tiled.cut(tile, torch.device("cpu")), image[:, z : z + 8, :8, :8])
    moved.clear()

    free[0] -= 1
    large = TiledImage(image, (8, 8, 8), 0.5)
    for tile in (first, last):
        z = tile.start[0]
        large.keep_on(cuda, z, z + 8)
        image_before = large.image
        large.image = torch.zeros_like(image)  # tiles are cut from what was kept
        assert torch.equal(large.cut(tile, torch.device("cpu")), image[:, z : z + 8, :8, :8])
        large.image = image_before
    assert [each for each in moved if cuda in each[1]] == [((2, 8, 9, 8), (cuda,))] * 2
    assert large.leave_device()
    assert not large.leave_device()
    moved.clear()
    large.keep_on(cuda, 0, 8)  # once it had to leave, it stays away
    TiledImage(image, (8, 8, 8), 0.5).keep_on(torch.device("cpu"), 0, 8)
    free[0] = 1
    TiledImage(image, (8, 8, 8), 0.5).keep_on(cuda, 0, 8)
    assert moved == []
    assert torch.equal(large.cut(first, torch.device("cpu")), image[:, :8, :8, :8])


def test_an_image_for_which_memory_runs_out_on_the_device_is_sent_tile_by_tile(monkeypatch):
    image = torch.rand(1, 10, 9, 8)
    tried = []

    def fails(tensor, *where):
        tried.append(where)
        raise torch.OutOfMemoryError("CUDA out of memory")

    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    tiled = TiledImage(image, (8, 8, 8), 0.5)
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "to", fails)
        tiled.keep_on(cuda, 0, 8)
        tiled.keep_on(cuda, 2, 10)
    assert tried == [(cuda,)]
    tile = tiled.layers()[1][0]
    assert torch.equal(tiled.cut(tile, torch.device("cpu")), image[:, 2:, :8, :8])


def test_the_image_leaves_the_device_before_the_sums_do():
    class NoRoom:
        def leave_device(self) -> bool:
            raise AssertionError("the sums were asked to leave first")

    image = TiledImage(torch.rand(2, 8, 8, 8), (8, 8, 8), 0.5)
    image._on_device = image.image
    network = Counting(blurred, most=0)
    summands = summands_of([network])
    cpu = torch.device("cpu")
    runner = TileRunner(image, summands, device=cpu, precision=torch.float32, limits=LearnedLimits())
    assert runner._sums_or_room([tile for layer in image.layers() for tile in layer], NoRoom()) is None
    assert image._on_device is None


def test_one_tile_that_does_not_fit_is_an_error_that_says_so():
    network = Counting(blurred, most=0)
    with pytest.raises(TileTooLarge, match=r"tile of 8x8x8 voxels does not fit in the memory of cpu \(CUDA out"):
        dense(sliding_window(torch.rand(2, 10, 9, 8), [network], (8, 8, 8)))
    assert network.calls[-1] == 1

    def broken(tiles):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        dense(sliding_window(torch.rand(2, 10, 9, 8), [broken], (8, 8, 8)))


def test_at_one_tile_the_sums_leave_the_device_and_nothing_is_lost_or_given_twice():
    image = TiledImage(torch.rand(2, 8, 8, 20), (8, 8, 8), 0.5, None, 1)
    room = []

    def once_more(tiles):
        if not room:
            raise MemoryError
        return blurred(tiles)

    class OnTheDevice(Accumulator):
        def leave_device(self) -> bool:
            room.append(1)
            return len(room) == 1

    summands = summands_of([once_more])
    device = torch.device("cpu")
    limits = LearnedLimits(copies=4)
    runner = TileRunner(image, summands, device=device, precision=torch.float32, limits=limits)
    accumulator = OnTheDevice(image, summands, depth=8, device=device, room_bytes=1e9, limits=limits)
    tiles = [tile for layer in image.layers() for tile in layer]
    assert [tile for tile, _ in runner.run(tiles, accumulator)] == tiles
    assert room == [1]
    assert runner.copies_at_once == 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_sums_are_moved_as_they_are_laid_out(channels_last):
    values = torch.rand(3, 4, 5, 6)
    values = values.permute(1, 2, 3, 0).contiguous().movedim(-1, 0) if channels_last else values
    limits = LearnedLimits(say=lambda note: None)
    moved = moved_to_host(values, 1e9, limits)
    assert torch.equal(moved, values)
    assert moved.stride() == values.stride()
    assert limits.sums_on_host
    assert "they are kept on the host" in limits.printed.pop()


@pytest.mark.parametrize(
    "room_bytes, kept",
    [(4000, FLOAT32), (3999, FLOAT16), (2000, FLOAT16), (1999, ON_DISK), (500, ON_DISK), (float("inf"), FLOAT32)],
)
def test_sums_are_kept_in_what_there_is_room_for(room_bytes, kept):
    assert choose_storage(1000, room_bytes, least_room_bytes=500) == kept
    note = storage_note(kept, 2**30, room_bytes, Path("/scratch"))
    assert note == {
        FLOAT32: "",
        FLOAT16: "sums are kept in float16: float32 would take 4.0 GB, and there is room for 0.0",
        ON_DISK: "sums are kept in a file of 2.0 GB in /scratch, which is slower: float32 would take 4.0 GB, and there "
        "is room for 0.0",
    }.get(kept)


def test_too_little_room_for_anything_is_an_error_that_says_how_much_is_missing():
    with pytest.raises(UserError, match=r"needs 1.12 GB of memory more than it may take, even with its sums on disk"):
        choose_storage(10, -GIGABYTE)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("share", [0.75, 0.25])
def test_sums_of_16_bit_and_on_disk_are_near_those_of_32(classes, share, capsys):
    image = torch.randn(1, 20, 17, 21)
    patch = (8, 16, 16)
    members = summands_of([unet(classes=classes)], (2,))
    exact = dense(sliding_window(image, members, patch))
    full = 4 * min(classes, 8) * 16 * 17 * 21  # logits or features of the slices at work
    limits = LearnedLimits(least_room_bytes=0)
    for _ in range(2):
        found = dense(sliding_window(image, members, patch, room_bytes=share * full, limits=limits))
        torch.testing.assert_close(found, exact, rtol=0, atol=0.02)
        assert not torch.equal(found, exact)
    said = capsys.readouterr().out
    assert said.count("sums are kept in ") == 1
    assert ("sums are kept in a file" in said) == (share < 0.5)


def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    kept = allocate(ON_DISK, (2, 3, 5), torch.device("cpu"), tmp_path)
    kept += 1.5
    assert kept.sum() == 45
    assert list(tmp_path.iterdir()) == []  # it has no name

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host_memory.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no room for a file of 3.7 GB \(No space left on device\); allow more with"):
        allocate(ON_DISK, (2000, 1000, 1000), torch.device("cpu"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("patch, itemsize", [((32, 32, 32), 4), ((16, 64, 64), 2)])
def test_activations_are_foreseen(patch, itemsize):
    network = spec(features=(32, 64, 128), strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)), kernels=((3, 3, 3),) * 3,
                   encoder_blocks=(2, 2, 2), decoder_convs=(2, 2))  # fmt: skip
    dtype = torch.float32 if itemsize == 4 else torch.bfloat16
    with torch.device("meta"), torch.no_grad():
        built = build_network(network).eval().to(dtype)
        image = torch.empty(1, 1, *patch, dtype=dtype)
        with StepCounter() as counted:
            built.features(image)
    predicted = activation_bytes(network, patch, 1, itemsize)
    assert 0.8 * counted.peak_bytes < predicted < 1.5 * counted.peak_bytes


@pytest.mark.parametrize("classes", [3, 40])
def test_on_a_device_sums_stay_there_in_float32_and_have_the_shapes_of_the_host(classes):
    """A stand-in for a GPU: the meta device holds no values, but goes the way of one."""
    image = torch.randn(1, 20, 17, 21)
    patch = (8, 16, 16)
    on_host = sliding_window(image, summands_of([unet(classes=classes)], (1, 2)), patch)
    network = unet(classes=classes).to("meta")
    limits = LearnedLimits()
    on_device = sliding_window(image, summands_of([network], (1, 2)), patch, device=torch.device("meta"), limits=limits)
    for wanted, found in zip(on_host, on_device, strict=True):
        assert (found.first, found.start, found.stop) == (wanted.first, wanted.start, wanted.stop)
        assert found.channels_azyx.shape == wanted.channels_azyx.shape
        assert found.channels_azyx.stride() == wanted.channels_azyx.stride()
        assert found.channels_azyx.dtype == torch.float32
        assert found.channels_azyx.device.type == "meta"
        assert (found.heads is None) == (classes == 3)
        if found.heads is not None:
            assert found.heads.weights_ka[0].device.type == "meta"
    assert not limits.sums_on_host


def test_sums_go_to_the_host_where_the_device_has_no_room_for_them(monkeypatch, capsys):
    """On the meta device again, which is made to have no memory."""

    def no_room(storage, shape, device, folder=None):
        if device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return allocate(storage, shape, device, folder)

    monkeypatch.setattr(accumulator_module, "allocate", no_room)
    image = TiledImage(torch.rand(2, 8, 8, 20), (8, 8, 8), 0.5)
    summands = summands_of([blurred])
    limits = LearnedLimits()
    accumulator = Accumulator(image, summands, depth=8, device=torch.device("meta"), room_bytes=1e9, limits=limits)
    tiles = image.layers()[0]
    for tile in tiles:
        accumulator.add(tile, [torch.ones(3, 8, 8, 8)])
    slab = accumulator.slab(0, 8)
    torch.testing.assert_close(slab.channels_azyx, torch.ones(3, 8, 8, 20))
    assert limits.sums_on_host
    assert "they are kept on the host" in capsys.readouterr().out
    assert not accumulator.leave_device()  # they lie there already


def test_the_slices_of_every_tile_are_asked_for_before_it_is_cut(monkeypatch):
    kept = []
    usual = TiledImage.cut

    def cut(image, tile, device):
        first, stop = kept[-1]
        assert first <= tile.start[0] <= stop - image.patch_size[0]
        return usual(image, tile, device)

    monkeypatch.setattr(TiledImage, "keep_on", lambda image, device, first, stop: kept.append((first, stop)))
    monkeypatch.setattr(TiledImage, "cut", cut)
    monkeypatch.setattr("segfw.inference.tile_runner.copies_per_batch", lambda patch, device: 1)
    list(sliding_window(torch.rand(1, 20, 9, 8), [lambda tiles: tiles], (8, 8, 8)))
    assert kept == [(0, 8), (4, 12), (8, 16), (12, 20)]
