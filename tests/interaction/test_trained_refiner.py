"""A refiner that was trained for seconds, from its stored weights to a corrected mask."""

from dataclasses import replace

import numpy as np
import pytest

from builders.models import plan_of
from builders.networks import small_refiner
from builders.refiner import canonical_grid, ras_of, volume
from builders.training import IDS, LABELS, prepare, request
from segfw.base.array_files import save_array
from segfw.interaction.refiner import Refiner
from segfw.model.load import load_refiner
from segfw.model.source import fold_folder
from segfw.networks.spec import REFINER
from segfw.planning.plan import FULLRES, PLAN_FILE, REFINE
from segfw.training.loop import train
from segfw.training.refiner_validation import NAMES

SHAPE = (8, 16, 20)
SPACING_MM = (4.0, 1.5, 1.0)
BOXES = (np.s_[1:7, 3:13, 2:8], np.s_[1:7, 3:13, 12:18])


def two_boxes():
    image = np.zeros(SHAPE, np.float32)
    for box in BOXES:
        image[box] = 1
    return image


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Of two equal boxes in every image one is the structure, and nothing was found: only a click can tell which."""
    stored, how = prepare(tmp_path_factory.mktemp("stored"))
    found = tmp_path_factory.mktemp("found")
    for number, case in enumerate(IDS):
        classes = np.zeros(SHAPE, np.uint8)
        classes[BOXES[number % 2]] = 1
        save_array(stored / f"{case}.image.b2nd", two_boxes()[None].astype(np.float16))
        save_array(stored / f"{case}.classes.b2nd", classes)
        save_array(found / f"{case}.b2nd", np.zeros_like(classes))
    folder = tmp_path_factory.mktemp("work")
    made = request(
        (stored, how),
        fold_folder(folder, REFINE, "0"),
        network=small_refiner(REFINER),
        previous=found,
        structures=((1,),),
        label_names=NAMES,
        epochs=4,
        steps_per_epoch=40,
        precision="fp32",
        momentum=0.9,
        mirroring=False,
        augmentation="none",
    )
    chosen = made.configuration.model_copy(
        update={"name": REFINE, "is_refiner": True, "previous_stage": FULLRES, "patch_size": SHAPE}
    )
    train(replace(made, configuration=chosen))
    unchanged = tuple(rule.model_copy(update={"kind": "none"}) for rule in how.normalization)
    as_stored = how.model_copy(update={"normalization": unchanged})
    plan_of(chosen.model_copy(update={"preprocessing": as_stored})).save(folder / PLAN_FILE)
    return folder


def test_a_click_on_one_of_two_equal_boxes_finds_that_one(work):
    model = load_refiner(work)
    assert model.previous is None
    grid = canonical_grid(SHAPE, SPACING_MM)
    image = two_boxes() + np.float32(1e-3)  # nowhere 0, so that nothing is cropped
    for clicked, other in (BOXES, BOXES[::-1]):
        with Refiner(model, device="cpu", precision="fp32").open(volume(image, grid)) as case:
            voxel = [(part.start + part.stop) // 2 for part in clicked]
            change = case.click("bright", ras_of(grid, voxel))
            found = case.mask.array[0] == LABELS.values[1]
            assert found[clicked].mean() > 0.8
            assert found[other].mean() < 0.2
            assert change.windows == 1
            case.undo()
            assert not case.mask.array.any()
