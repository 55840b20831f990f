"""Classes made block by block from slabs equal those of full-size logits, for every change of shape, up to ties."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from builders.grids import CHANGES
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.resample import Resampling
from segfw.grid.restore import Restoring, restore
from segfw.grid.slabs import Heads, Slab, one_slab
from segfw.grid.winners import Winners, first_largest, last_above_zero
from segfw.images.geometry import Geometry


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(100, 50, shape).astype(np.float32))


def blobs(count: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """Smooth logits (K, Z, Y, X) of which each class wins in some places and is far behind in the others."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 3, mode="nearest") for _ in range(count)]
    return torch.from_numpy(np.stack(fields).astype(np.float32)) * 100


def territories(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Blurred one-hot of the places nearest to one of some points, and a little noise."""
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 1, (count, 3)) * shape
    _, nearest = cKDTree(points).query(np.moveaxis(np.indices(shape), 0, -1))
    fields = [ndimage.gaussian_filter((nearest == index).astype(float), 1) for index in range(count)]
    return (
        torch.from_numpy(np.stack(fields).astype(np.float32)) * 20
        - 10
        + torch.from_numpy(rng.normal(0, 0.01, (count, *shape)).astype(np.float32))
    )


def record(old: tuple, new: tuple, thick: int | None = None, **changed: object) -> PreprocessRecord:
    """Of an image of shape ``new`` that fills its file, as it was brought to ``old``."""
    own_mm = tuple(100.0 if axis == thick else 1.0 for axis in range(3))
    fields = {
        "original": Geometry.of(new, np.diag([*own_mm[::-1], 1.0])[[0, 1, 2, 3]][:, [2, 1, 0, 3]]),
        "box": tuple((0, size) for size in new),
        "axis_order": (0, 1, 2),
        "cropped_shape": new,
        "cropped_spacing_mm": own_mm,
        "shape": old,
        "spacing_mm": tuple(mm * size / before for mm, size, before in zip(own_mm, new, old)),
        "logits": Resampling(order=1, apart=thick is not None),  # whatever the made spacings say
    }
    return PreprocessRecord(**fields | changed)


def in_slabs(logits: torch.Tensor, cuts: list[int]) -> list[Slab]:
    """A stream that ends a slab at each of ``cuts`` and at the end."""
    bounds = [0, *cuts, logits.shape[1]]
    return [
        Slab(first=max(0, start - 1), start=start, stop=stop, channels_azyx=logits[:, max(0, start - 1) : stop])
        for start, stop in zip(bounds, bounds[1:])
    ]


def fed(slabs: list[Slab], *arguments: object, **sizes: object) -> np.ndarray:
    restoring = Restoring(*arguments, **sizes)
    for slab in slabs:
        restoring.add(slab)
    return restoring.result()


def full_size(logits: torch.Tensor, new: tuple, thick: int | None) -> np.ndarray:
    """The naive way, by scipy in float64: every class as a whole on the new grid."""
    result = []
    for values in logits.double().numpy():
        for axis in range(3):
            factors = [new[axis] / size if other == axis else 1 for other, size in enumerate(values.shape)]
            order = 0 if axis == thick else 1
            values = ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)
        result.append(values)
    assert result[0].shape == tuple(new)
    return np.stack(result)


def lead_of(full: np.ndarray) -> np.ndarray:
    ordered = np.sort(full, 0)
    return ordered[-1] - ordered[-2]


@pytest.mark.parametrize("old, new", CHANGES)
@pytest.mark.parametrize("thick", [None, 0, 2])
@pytest.mark.parametrize("make", [noise, lambda shape: blobs(shape[0], shape[1:])])
def test_classes_equal_the_argmax_of_full_size_logits(old, new, thick, make):
    logits = make((5, *old))
    way_back = record(old, new, thick)
    part = (2, 4, 4)  # several parts even in so small volumes
    full = full_size(logits, new, thick)
    is_clear = lead_of(full) > 1e-4 * float(logits.abs().max())
    assert is_clear.mean() > 0.99
    results = [
        fed(in_slabs(logits, cuts), way_back, part=part)
        for cuts in ([], [1], [*range(1, old[0])])
        if max(cuts, default=0) < old[0]
    ]
    for result in results:
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, results[0])
        np.testing.assert_array_equal(result[is_clear], full.argmax(0)[is_clear])


@pytest.mark.parametrize("classes", [15, 105])
def test_filled_parts_change_nothing_and_ties_are_counted(classes, monkeypatch):
    logits = territories(classes, (25, 28, 31))
    new = (30, 36, 40)
    resized = []
    original = BlockResampler.resize_rows
    monkeypatch.setattr(
        BlockResampler, "resize_rows", lambda self, values, part: resized.append(part) or original(self, values, part)
    )
    result = restore(logits, record((25, 28, 31), new), part=(4, 8, 8))
    full = full_size(logits, new, None)
    wrong = result != full.argmax(0)
    # Only where the first two are equal but for the rounding of float32; here that is nowhere.
    assert lead_of(full)[wrong].max(initial=0) < 1e-5
    assert wrong.sum() <= 2
    parts = 8 * 5 * 5
    assert 0 < len(resized) < parts if classes == 15 else len(resized) == parts  # the others hold one class


def test_only_parts_where_more_than_one_class_wins_are_resized(monkeypatch):
    blocks = []
    original = BlockResampler.resize_rows
    monkeypatch.setattr(
        BlockResampler, "resize_rows", lambda self, values, part: blocks.append(part) or original(self, values, part)
    )
    logits = torch.zeros(3, 8, 16, 16)
    logits[0] = 1
    logits[2, :, :, 9:] = 2  # becomes class 2 from 18.5 of the new voxels on, which is in the third part of four
    result = restore(logits, record((8, 16, 16), (16, 32, 32)), part=(4, 8, 8))
    assert [part[2] for part in blocks] == [slice(16, 24)] * 16
    assert result[0, 0].tolist() == [0] * 18 + [2] * 14


def test_of_equal_logits_the_lowest_class_wins_everywhere():
    pair = noise((1, 6, 7, 8)).expand(4, -1, -1, -1).clone()
    pair[0] -= 1
    assert (restore(pair, record((6, 7, 8), (9, 12, 10))) == 1).all()
    # Half way between two voxels whose winners trade places both are equal.
    line = torch.tensor([[0.0, 1], [1, 0], [-5, -5]]).view(3, 1, 1, 2)
    assert restore(line, record((1, 1, 2), (1, 1, 1))).tolist() == [[[0]]]
    assert restore(line, record((1, 1, 2), (1, 1, 4))).ravel().tolist() == [1, 1, 0, 0]


def test_a_third_class_that_wins_only_between_voxels_is_found():
    # 10 0, 0 10 and 6 6: at the two voxels the first and the second win, half way 5, 5 and 6.
    logits = torch.tensor([[10.0, 0], [0, 10], [6, 6], [4, 4]]).view(4, 1, 1, 2)
    # New centres at -0.3, 0.1, 0.5, 0.9, 1.3 of the old: 9 1 6, 5 5 6, 1 9 6.
    assert restore(logits, record((1, 1, 2), (1, 1, 5))).ravel().tolist() == [0, 0, 2, 1, 1]


def test_regions_are_painted_in_order_where_their_logit_is_above_zero():
    logits = torch.tensor([[5.0, 5, -1, 0, -1], [-9.0, 0.1, 2, 0, -3]]).view(2, 1, 1, 5)
    same = record((1, 1, 5), (1, 1, 5))
    assert restore(logits, same, (1, 2)).ravel().tolist() == [1, 2, 2, 0, 0]
    assert restore(logits.flip(0), same, (2, 1)).ravel().tolist() == [1, 1, 2, 0, 0]
    assert restore(logits, same, (1, 300)).dtype == np.uint16
    assert restore(logits, same, (1, 1)).ravel().tolist() == [1, 1, 1, 0, 0]  # two regions painted alike


@pytest.mark.parametrize("thick", [None, 0])
@pytest.mark.parametrize("old, new", [((5, 9, 12), (11, 17, 25)), ((25, 28, 31), (30, 36, 40))])
def test_painting_equals_that_of_full_size_probabilities(old, new, thick):
    logits = blobs(3, old)
    full = full_size(logits, new, thick)
    expected = np.where(full[2] > 0, 2, np.where(full[1] > 0, 7, np.where(full[0] > 0, 4, 0)))
    assert set(np.unique(expected)) == {0, 2, 4, 7}
    is_clear = (np.abs(full) > 1e-4).all(0)
    for cuts in ([], [2, 3]):
        painted = fed(in_slabs(logits, cuts), record(old, new, thick), (4, 7, 2))
        np.testing.assert_array_equal(painted[is_clear], expected[is_clear])


def test_on_the_same_grid_nothing_is_resized_and_300_classes_take_16_bit(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__matmul__", None)
    logits = noise((300, 3, 4, 5))
    logits[[7, 290], 1, 1, 1] = 1e6
    result = restore(logits, record((3, 4, 5), (3, 4, 5)))
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, logits.numpy().argmax(0))
    assert result[1, 1, 1] == 7


def test_half_precision_and_heads_in_place_of_logits_give_the_same():
    logits = noise((3, 9, 10, 11))
    way_back = record((9, 10, 11), (20, 13, 7))
    rounded = logits.bfloat16()
    np.testing.assert_array_equal(restore(rounded, way_back), restore(rounded.float(), way_back))
    weights = torch.randn(5, 3)
    bias = torch.randn(5) * 50
    by_heads = Heads(weights_ka=[weights], biases_k=[bias])
    slab = Slab(first=0, start=0, stop=9, channels_azyx=logits, heads=by_heads)
    np.testing.assert_array_equal(fed([slab], way_back), restore(by_heads.logits(logits), way_back))


def test_crop_axes_and_orientation_of_the_file_come_back():
    # Stored x y z, x towards the left: network axes are the canonical x, z, y.
    affine = np.array([[-2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    original = Geometry.of((6, 4, 3), affine)
    box = ((1, 3), (0, 4), (2, 5))  # of (z 3, y 4, x 6)
    way_back = record((3, 2, 4), (3, 2, 4), original=original, box=box, axis_order=(2, 0, 1))
    logits = noise((7, 3, 2, 4))
    expected = np.zeros((3, 4, 6), np.uint8)
    expected[1:3, 0:4, 2:5] = logits.numpy().argmax(0).transpose(1, 2, 0)
    np.testing.assert_array_equal(restore(logits, way_back), expected[:, :, ::-1].transpose(2, 1, 0))


def test_classes_go_onto_the_grid_of_another_configuration():
    logits = blobs(4, (6, 9, 10))
    new = (13, 17, 12)
    low = record((6, 9, 10), (11, 12, 13))
    full = record(new, (11, 12, 13))
    expected = full_size(logits, new, None)
    is_clear = lead_of(expected) > 1e-4
    found = restore(logits, low, onto=full)
    np.testing.assert_array_equal(found[is_clear], expected.argmax(0)[is_clear])
    np.testing.assert_array_equal(fed(in_slabs(logits, [1, 4]), low, (), full), found)
    with pytest.raises(ValueError, match="differ in their crop"):
        Restoring(low, (), full.model_copy(update={"axis_order": (1, 0, 2)}))


def test_a_result_is_not_given_before_all_slabs_have_come():
    restoring = Restoring(record((6, 7, 8), (9, 12, 10)))
    with pytest.raises(ValueError, match="0 of 9"):
        restoring.result()
    first, _ = in_slabs(noise((2, 6, 7, 8)), [4])
    restoring.add(first)  # old centres 0 to 3 are new ones up to 5.0: slices 0 to 4 and, at 3.17, not slice 5
    with pytest.raises(ValueError, match="5 of 9"):
        restoring.result()


@pytest.mark.parametrize("old, new", CHANGES)
@pytest.mark.parametrize("thick", [None, 1])
def test_any_block_is_resized_as_the_whole(old, new, thick):
    values = noise((2, *old))
    resampler = BlockResampler(old, new, thick)
    whole = full_size(values, new, thick)
    rng = np.random.default_rng(1)
    for _ in range(10):
        starts = [int(rng.integers(size)) for size in new]
        block = tuple(slice(start, int(rng.integers(start, size)) + 1) for start, size in zip(starts, new))
        source = resampler.source(block)
        resized = resampler.resize(values[(slice(None), *source)], block)
        np.testing.assert_allclose(resized.numpy(), whole[(slice(None), *block)], atol=1e-3)
        rows = resampler.resize_rows(values[(slice(None), *source)].movedim(0, -1), block)
        torch.testing.assert_close(rows.movedim(-1, 0), resized, rtol=1e-5, atol=1e-4)
    for stop in range(old[0] + 1):
        ready = resampler.complete(stop)
        needed = [resampler.source((slice(z, z + 1), slice(0, 1), slice(0, 1)))[0].stop for z in range(new[0])]
        assert ready == sum(last <= stop for last in needed)
    assert resampler.complete(old[0]) == new[0]


def test_largest_and_last_of_many_and_of_what_is_no_number():
    values = torch.tensor([[1.0, 3, 2, -1, float("nan")], [1, 3, 5, -2, 1], [0, 4, 5, -1, 1]]).view(3, 1, 1, 5)
    assert first_largest(values).ravel().tolist() == [0, 2, 1, 0, 3]
    assert last_above_zero(values).ravel().tolist() == [1, 2, 2, 3, 2]
    many = torch.randint(0, 9, (300, 2, 3, 4)).float()
    assert torch.equal(first_largest(many).long(), many.argmax(0))
    # Where logits are no numbers the result is background, in the whole part that they belong to.
    broken = torch.cat([noise((2, 4, 4, 40)) - 1e3, noise((1, 4, 4, 40))])
    broken[1, 2, 2, 2] = float("nan")
    found = restore(broken, record((4, 4, 40), (6, 6, 80)))
    assert not found[:, :, :32].any()
    assert (found[:, :, 32:] == 2).all()


def test_infinite_features_whose_logits_are_no_numbers_are_background():
    weights_ka = torch.tensor([[2.0, 1], [1, -1], [1, 1]])  # infinite, no number, infinite
    heads = Heads(weights_ka=(weights_ka,), biases_k=(torch.zeros(3),))
    features = torch.full((2, 1, 1, 3), torch.inf)
    slab = Slab(first=0, start=0, stop=1, channels_azyx=features, heads=heads)
    assert fed([slab], record((1, 1, 3), (1, 1, 3))).ravel().tolist() == [0, 0, 0]


@pytest.mark.parametrize("old, new", CHANGES)
@pytest.mark.parametrize("painted", [(), (4, 7, 2, 9, 1)])
@pytest.mark.parametrize("has_heads", [False, True])
def test_what_is_found_where_the_logits_lie_is_the_same(old, new, painted, has_heads):
    """The way of a GPU, here on the CPU: winners stay tensors until they are classes."""
    logits = blobs(5, old)
    heads = Heads(weights_ka=[torch.randn(5, 5)], biases_k=[torch.randn(5)]) if has_heads else None
    slab = Slab(first=0, start=0, stop=old[0], channels_azyx=logits, heads=heads)
    usual = fed([slab], record(old, new), painted, on_device=False)
    on_device = fed([slab], record(old, new), painted, on_device=True)
    assert on_device.dtype == usual.dtype
    np.testing.assert_array_equal(on_device, usual)


@pytest.mark.parametrize("count", [255, 256, 300])
def test_more_classes_than_a_byte_holds_are_found_where_the_logits_lie(count):
    logits = noise((count, 3, 4, 5))
    logits[[7, count - 1], 1, 1, 1] = 1e6
    logits[count - 1, 0, 0, 0] = 1e7
    for new in ((3, 4, 5), (5, 4, 7)):
        usual = restore(logits, record((3, 4, 5), new))
        found = fed([one_slab(logits)], record((3, 4, 5), new), on_device=True)
        assert found.dtype == usual.dtype == (np.uint8 if count < 257 else np.uint16)
        np.testing.assert_array_equal(found, usual)
    logits[:, 2, 2, 2] = float("nan")  # background, though its number is that of no class
    same = record((3, 4, 5), (3, 4, 5))
    np.testing.assert_array_equal(fed([one_slab(logits)], same, on_device=True), restore(logits, same))
    painted = (1, 2, 40_000)  # a value that 16 signed bits do not hold
    regions = logits[:3]
    np.testing.assert_array_equal(
        fed([one_slab(regions)], record((3, 4, 5), (5, 4, 7)), painted, on_device=True),
        restore(regions, record((3, 4, 5), (5, 4, 7)), painted),
    )


@pytest.mark.parametrize("count, kind", [(5, torch.uint8), (255, torch.uint8), (256, torch.int16)])
def test_winners_on_a_device_take_no_more_than_they_need(count, kind):
    winners = Winners(None, count, of_regions=False, rows=100, on_device=True)
    rows_zyxa = noise((2, 3, 4, count))
    assert winners(rows_zyxa).dtype == winners.empty_like(rows_zyxa, (2, 3, 4)).dtype == kind
    assert torch.equal(winners(rows_zyxa).long(), rows_zyxa.argmax(-1))


def test_a_byte_a_voxel_leaves_the_device(monkeypatch):
    """Before, the index of each winner did, as an integer of 64 bits."""
    moved = 0
    original = torch.Tensor.cpu

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal moved
        moved += tensor.nbytes
        return original(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    fed([one_slab(blobs(5, (7, 20, 9)))], record((7, 20, 9), (13, 11, 9)), on_device=True)
    assert moved == 13 * 11 * 9


def test_memory_does_not_grow_with_the_classes_or_the_volume():
    """The largest tensor on the way is a block's or a part's, of no more bytes for 200 classes than the limit."""
    for count, size in ((10, 32), (200, 32), (10, 64)):
        largest = 0

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                nonlocal largest
                result = func(*args, **kwargs or {})
                if (
                    isinstance(result, torch.Tensor)
                    and result._base is None
                    and not torch._C._is_alias_of(result, args[0])
                ):
                    largest = max(largest, result.untyped_storage().nbytes())
                return result

        logits = torch.zeros(count, 1, 1, 1).expand(-1, size, size, size)  # no memory of its own
        way_back = record((size,) * 3, (size * 3 // 2,) * 3)
        restoring = Restoring(way_back, part=(4, 8, 8), cpu_block_bytes=2**20, cpu_rows=2**10)
        with Watch():
            restoring.add(one_slab(logits))
        assert largest < 2 * 2**20


def without_others(classes: np.ndarray, only: tuple[int, ...]) -> np.ndarray:
    return np.where(np.isin(classes, only), classes, 0)


@pytest.mark.parametrize("old, new", CHANGES)
@pytest.mark.parametrize("only", [(1,), (2, 5)])
@pytest.mark.parametrize("make", [blobs, territories])
def test_some_classes_alone_are_the_whole_result_without_the_others(old, new, only, make):
    logits = make(7, old)
    way_back = record(old, new)
    whole = restore(logits, way_back, part=(2, 4, 4))
    some = restore(logits, way_back, only=only, part=(2, 4, 4))
    np.testing.assert_array_equal(some, without_others(whole, only))
    cuts = [1, 3] if old[0] > 3 else []
    np.testing.assert_array_equal(fed(in_slabs(logits, cuts), way_back, only=only, part=(2, 4, 4)), some)


@pytest.mark.parametrize("new", [(10, 13, 9), (17, 20, 19)])
def test_some_classes_alone_of_features_before_the_last_layer(new):
    rng = np.random.default_rng(4)
    old = (10, 13, 9)
    features = blobs(3, old, seed=5)
    weights = torch.from_numpy(rng.normal(0, 1, (40, 3)).astype(np.float32))
    bias = torch.from_numpy(rng.normal(0, 1, 40).astype(np.float32))
    heads = Heads(weights_ka=(weights,), biases_k=(bias,))
    slab = Slab(first=0, start=0, stop=old[0], channels_azyx=features, heads=heads)
    way_back = record(old, new)
    whole = fed([slab], way_back, part=(2, 4, 4))
    for only in ((int(np.bincount(whole.ravel()).argmax()),), (3, 17)):
        some = fed([slab], way_back, only=only, part=(2, 4, 4))
        np.testing.assert_array_equal(some, without_others(whole, only))


def test_no_full_logits_are_made_where_the_background_beats_all_that_is_wanted(monkeypatch):
    looked_at = []
    whole_look = Winners._array

    def counted(self, channels_zyxa):
        looked_at.append(channels_zyxa.shape[:3].numel())
        return whole_look(self, channels_zyxa)

    monkeypatch.setattr(Winners, "_array", counted)
    logits = torch.full((30, 8, 16, 16), -10.0)
    logits[0] = 0
    logits[7, :2, :4, :4] = 5  # the only place of what is wanted
    logits[9, 4:] = 5
    way_back = record((8, 16, 16), (16, 32, 32))
    assert set(np.unique(restore(logits, way_back, only=(7,), part=(4, 8, 8)))) == {0, 7}
    of_some = sum(looked_at)
    restore(logits, way_back, part=(4, 8, 8))
    of_all = sum(looked_at) - of_some
    assert 0 < of_some < of_all / 3


def test_some_outputs_are_not_restored_of_regions():
    with pytest.raises(ValueError, match="only some outputs"):
        Restoring(record((2, 2, 2), (4, 4, 4)), (1, 2), only=(1,))
