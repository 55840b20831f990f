"""The lesson: what is shown, what counts in the loss, and that a run of it goes on bit for bit."""

from dataclasses import replace

import pytest
import torch

from builders.networks import spec
from builders.training import IDS, ZSCORE, prepare, request, weights
from segfw.grid.store import load_stored, open_case, save_image_record
from segfw.planning.splits import Fold
from segfw.pretraining.reconstruction import (
    build_hidden_loss,
    hidden_sums,
    hide_blocks,
    reconstructing_network,
    reconstruction,
)
from segfw.training.loop import train
from segfw.training.metrics_log import read_metrics


def alone(sums):
    return sums


def truth_of(image, counted):
    return torch.cat((image, counted[:, None].float()), 1)


def test_hidden_voxels_alone_count():
    """Of 2 channels and 2 x 1 x 3 voxels two are hidden: errors of 3 and 1, and of 2 and 0, are 14 squares of 4."""
    image = torch.zeros(1, 2, 2, 1, 3)
    counted = torch.zeros(1, 2, 1, 3)
    counted[0, 0, 0, 1] = counted[0, 1, 0, 2] = 1
    said = torch.full((1, 2, 2, 1, 3), 100.0)
    said[0, :, 0, 0, 1] = torch.tensor([3.0, 1.0])
    said[0, :, 1, 0, 2] = torch.tensor([2.0, 0.0])
    said.requires_grad_()
    loss = build_hidden_loss(alone)([said, torch.ones(1, 2, 1, 1, 1)], truth_of(image, counted))
    assert float(loss) == 14 / 4
    loss.backward()
    gradient = said.grad[0].abs().sum(0)
    assert gradient[0, 0, 1] > 0
    assert gradient.count_nonzero() == 2  # nobody learns of what was seen


def test_squares_of_what_was_there_are_what_zeros_get_wrong():
    image = torch.arange(6.0).reshape(1, 1, 1, 2, 3)
    counted = (image[:, 0] >= 3).float()
    error, energy, number = hidden_sums(torch.zeros_like(image), truth_of(image, counted)).tolist()
    assert (error, energy, number) == (9 + 16 + 25, 9 + 16 + 25, 3)


def test_nothing_hidden_is_a_loss_of_zero():
    assert float(build_hidden_loss(alone)([torch.ones(1, 1, 1, 2, 3)], torch.zeros(1, 2, 1, 2, 3))) == 0


def test_what_is_hidden_is_zero_and_outside_does_not_count():
    image = torch.rand(2, 2, 4, 8, 12) + 1
    inside = torch.ones(2, 4, 8, 12, dtype=torch.bool)
    inside[:, :, :, :4] = False
    shown, truth = hide_blocks(image, inside, [3, 4], (4, 4, 4))
    hidden = (shown == 0).all(1)
    assert torch.equal(shown, torch.where(hidden[:, None], 0.0, image))
    assert torch.equal(truth[:, :2], image)
    assert torch.equal(truth[:, 2] == 1, hidden & inside)
    assert hidden.flatten(1).sum(1).tolist() == [256, 256]  # 60 % of the six blocks of 64 voxels are 4
    assert not torch.equal(hidden[0], hidden[1])
    assert torch.equal(hide_blocks(image[1:], inside[1:], [4], (4, 4, 4))[0], shown[1:])  # by its own seed


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The cases of ``training.prepare`` as images alone: what is known by their masks is deleted."""
    folder, how = prepare(tmp_path_factory.mktemp("images"))
    for case in IDS:
        stored = load_stored(folder, case)
        save_image_record(folder, case, ZSCORE, stored.record, stored.sources[:1])
        for part in ("classes", "foreground"):
            (folder / f"{case}.{part}.b2nd").unlink()
    return folder, how


def lesson_request(images, folder, **values):
    network = reconstructing_network(spec())
    wanted = {"lesson": reconstruction(spec()), "label_names": (), "learning_rate": 0.05, **values}
    return request(images, folder, network=network, **wanted)


def test_an_image_alone_is_a_case_of_nothing_but_background(images):
    case = open_case(images[0], IDS[0], in_memory=True)
    assert case.classes.shape == case.image.shape[1:]
    assert not case.classes.any()
    assert case.foreground == {}


def test_a_network_learns_of_images_alone(images, tmp_path):
    train(lesson_request(images, tmp_path / "run", epochs=8, steps_per_epoch=10))
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["val_explained"] > max(0.05, rows[0]["val_explained"])
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert "val_dice" not in rows[-1]
    page = (tmp_path / "run" / "progress.html").read_text(encoding="utf-8")
    assert "Pretraining on images alone" in page
    assert "of the squares of hidden voxels is explained, epoch 8" in page
    assert "Dice" not in page


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_that_is_killed_ends_like_an_undisturbed_one(images, tmp_path, step):
    train(lesson_request(images, tmp_path / "whole"))
    lesson = reconstruction(spec())
    calls = []

    def build_loss(join):
        loss = lesson.build_loss(join)

        def killing(outputs, truth):
            calls.append(1)
            if len(calls) == step + 1:
                raise Killed
            return loss(outputs, truth)

        return killing

    often = {"checkpoint_every_s": 0.0}
    with pytest.raises(Killed):
        train(lesson_request(images, tmp_path / "cut", lesson=replace(lesson, build_loss=build_loss), **often))
    train(lesson_request(images, tmp_path / "cut", resume=True))
    whole = weights(tmp_path / "whole")
    resumed = weights(tmp_path / "cut")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_case_that_validates_is_judged_and_not_learnt(images, tmp_path):
    """The network learns nothing of it: with or without it in the fold the weights are the same."""
    weights_of = []
    for name, validation in (("with", IDS[3:]), ("without", ())):
        fold = Fold(train=IDS[:3], validation=validation)
        train(lesson_request(images, tmp_path / name, fold=fold, epochs=1))
        weights_of.append(weights(tmp_path / name))
    assert all(torch.equal(tensor, weights_of[1][name]) for name, tensor in weights_of[0].items())
