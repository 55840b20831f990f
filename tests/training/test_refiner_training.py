"""A refiner in training: it goes on exactly where it stopped, and learns to obey a click that alone can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.networks import small_refiner, spec
from builders.training import FOLD, IDS, TIMINGS, assert_same_weights, prepare, request, weights
from segfw.base.array_files import open_array, save_array
from segfw.clicks.click_maps import refiner_channels
from segfw.model.training_record import read_metrics
from segfw.networks import build_network
from segfw.networks.spec import CLICK_CHANNELS, CLICK_REFINER, NetworkSpec
from segfw.planning.plan import REFINE
from segfw.training import prepare as preparation
from segfw.training.loop import train
from segfw.training.refiner_validation import NAMES
from segfw.training.train_request import TrainRequest

DEEPER = small_refiner(CLICK_REFINER)
REFINING = spec(architecture=CLICK_REFINER, in_channels=1 + CLICK_CHANNELS, classes=2, features=(8, 16))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def found(prepared, tmp_path_factory) -> Path:
    """Masks as a first stage finds them: those of the cases, without the upper half of the slices that hold any."""
    folder = tmp_path_factory.mktemp("found")
    for case in IDS:
        classes = open_array(prepared[0] / f"{case}.classes.b2nd")[:].astype(np.uint8)
        filled = np.flatnonzero(classes.any((1, 2)))
        classes[filled[len(filled) // 2] :] = 0
        save_array(folder / f"{case}.b2nd", classes)
    return folder


def asked(prepared, folder: Path, found: Path, network: NetworkSpec = REFINING, **values) -> TrainRequest:
    made = request(
        prepared,
        folder,
        network=network,
        previous=found,
        structures=((1,), (2,)),
        label_names=NAMES,
        **values,
    )
    refining = {"name": REFINE, "is_refiner": True, "previous_stage": "3d_fullres"}
    return replace(made, configuration=made.configuration.model_copy(update=refining))


def test_a_resumed_refiner_ends_like_an_undisturbed_one(prepared, found, tmp_path, monkeypatch):
    settings = {"precision": "fp32", "checkpoint_every_s": 0.0, "augmentation": "device"}
    train(asked(prepared, tmp_path / "whole", found, **settings))

    class Killed(Exception):
        pass

    build = preparation.build_refiner_loss

    def that_kills(join):
        loss = build(join)
        calls = 0

        def killing(outputs, truth):
            nonlocal calls
            calls += 1
            if calls == 8:  # in the third epoch
                raise Killed
            return loss(outputs, truth)

        return killing

    monkeypatch.setattr(preparation, "build_refiner_loss", that_kills)
    with pytest.raises(Killed):
        train(asked(prepared, tmp_path / "cut", found, **settings))
    monkeypatch.setattr(preparation, "build_refiner_loss", build)
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    train(asked(prepared, tmp_path / "cut", found, **settings, resume=True))
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    rows = [
        [{key: value for key, value in row.items() if key not in TIMINGS} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4
    of_given = {row["val_dice_per_label"][1] for row in rows[0]}
    assert len(of_given) == 1  # the same patches and masks in every epoch
    assert 0.2 < of_given.pop() < 1


def test_fold_all_in_parts_of_a_batch_with_the_published_augmentation(prepared, found, tmp_path):
    everything = FOLD.model_copy(update={"train": IDS, "validation": ()})
    made = asked(prepared, tmp_path, found, fold=everything, epochs=1, augmentation="reference", accumulate=2)
    train(made)
    assert weights(tmp_path)
    assert len(read_metrics(tmp_path)[0]["val_dice_per_label"]) == 2


def test_slices_are_refined_too(prepared, found, tmp_path):
    flat = REFINING.model_copy(update={"strides": ((1, 1, 1), (1, 2, 2)), "kernels": ((1, 3, 3), (1, 3, 3))})
    made = asked(prepared, tmp_path, found, network=flat, epochs=1)
    train(replace(made, configuration=made.configuration.model_copy(update={"patch_size": (1, 16, 16)})))
    assert weights(tmp_path)


def test_it_learns_to_obey_a_click_where_nothing_else_can_tell(prepared, tmp_path):
    """Every image holds two equal boxes, of which one is the structure, and nothing was found: only a click says it."""
    folder = tmp_path / "stored"
    folder.mkdir()
    found = tmp_path / "found"
    first, second = np.s_[1:7, 3:13, 2:8], np.s_[1:7, 3:13, 12:18]
    for number, case in enumerate(IDS):
        for part in ("json", "foreground.b2nd"):
            (folder / f"{case}.{part}").write_bytes((prepared[0] / f"{case}.{part}").read_bytes())
        image = np.zeros((1, 8, 16, 20), np.float16)
        classes = np.zeros(image.shape[1:], np.uint8)
        image[0][first] = image[0][second] = 1
        classes[first if number % 2 else second] = 1
        save_array(folder / f"{case}.image.b2nd", image)
        save_array(folder / f"{case}.classes.b2nd", classes)
        save_array(found / f"{case}.b2nd", np.zeros_like(classes))
    made = asked(
        (folder, prepared[1]),
        tmp_path / "run",
        found,
        DEEPER,
        epochs=4,
        steps_per_epoch=40,
        precision="fp32",
        momentum=0.9,
        mirroring=False,
        augmentation="none",
    )
    wide = made.configuration.model_copy(update={"patch_size": (8, 16, 20)})
    train(replace(made, structures=((1,),), configuration=wide))
    network = build_network(DEEPER).eval()
    network.load_state_dict(weights(tmp_path / "run"))
    empty = np.zeros((8, 16, 20), bool)
    image = torch.zeros(1, 8, 16, 20)
    image[0][first] = image[0][second] = 1
    for (z, y, x), clicked, other in (((4, 8, 5), first, second), ((4, 8, 15), second, first)):
        channels = torch.from_numpy(refiner_channels(empty, empty, [(z, y, x)], [], (4.0, 1.5, 1.0)))
        with torch.no_grad():
            answer = network(torch.cat((image, channels))[None])[0]
        inside = answer[1] > answer[0]
        assert inside[clicked].float().mean() > 0.8
        assert inside[other].float().mean() < 0.2
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["val_dice"] > 0.8
    assert rows[-1]["val_dice_per_label"][1] == 0
