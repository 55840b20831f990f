"""The example of a network, a loss and an augmentation of one's own runs, and they are really the ones used."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train_custom  # noqa: E402

from segfw.images.formats import read_volume  # noqa: E402
from segfw.inference.predictor import Predictor  # noqa: E402
from segfw.model.load import load_model  # noqa: E402
from segfw.networks.losses import Target, deep_supervision_loss  # noqa: E402
from segfw.verbs.plan_and_preprocess import plan_and_preprocess  # noqa: E402


def test_the_loss_of_the_example_is_more_than_the_published_one():
    configuration = SimpleNamespace(batch_dice=False)
    logits, classes = torch.randn(2, 3, 2, 4, 4, requires_grad=True), torch.randint(0, 3, (2, 2, 4, 4))
    loss = train_custom.focal_and_dice(configuration, Target())([logits], classes)
    assert loss > deep_supervision_loss([logits], classes, False)
    loss.backward()
    assert logits.grad.isfinite().all()
    ignoring = train_custom.focal_and_dice(configuration, Target(ignore=2))
    other = torch.where((classes == 2)[:, None], 5.0, logits)
    expected = ignoring([logits], classes).item()
    assert ignoring([other], classes).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_example_trains_and_its_model_predicts(make_raw, tmp_path, monkeypatch, capsys, configuration):
    raw, work, steps = make_raw(cases=5), tmp_path / "work", []
    augmented = []
    plan_and_preprocess(raw, work, configurations=(configuration,), device="cpu")
    build_loss = train_custom.focal_and_dice

    def counted(*plan):
        loss = build_loss(*plan)
        return lambda outputs, classes: steps.append(len(outputs)) or loss(outputs, classes)

    def counted_augmentation(image, classes, rng):
        augmented.append(tuple(image.shape[:1]))
        return changed(image, classes, rng)

    monkeypatch.setattr(train_custom, "focal_and_dice", counted)
    changed = train_custom.contrast_and_noise
    monkeypatch.setattr(train_custom, "contrast_and_noise", counted_augmentation)
    options = ["--epochs", "1", "--steps-per-epoch", "2", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["train_custom.py", str(work), configuration, "0", *options])
    train_custom.main()
    assert len(steps) >= 2
    assert len(augmented) >= 2
    assert set(augmented) == {(1,)}
    assert set(steps) == {1}
    assert "mean Dice of whole validation cases: 0." in capsys.readouterr().out
    model = load_model(work)
    assert "layers.0.weight" in model.weights["0"]
    predictor = Predictor.of(model, device="cpu", build=train_custom.small_network)
    assert predictor(read_volume(raw / "imagesTr" / "case_00_0000.nii.gz")).geometry.shape == (10, 18, 20)


def test_the_augmentation_of_the_example_changes_intensities_alone_and_can_be_repeated():
    image = torch.randn(1, 2, 3, 8, 8)
    classes = torch.randint(0, 3, (1, 3, 8, 8))
    made, truth = train_custom.contrast_and_noise(image, classes, np.random.default_rng(5))
    again, _ = train_custom.contrast_and_noise(image, classes, np.random.default_rng(5))
    other, _ = train_custom.contrast_and_noise(image, classes, np.random.default_rng(6))
    assert torch.equal(made, again)
    assert not torch.equal(made, other)
    assert made.dtype == torch.float32
    assert torch.equal(truth, classes)
    assert np.corrcoef(made.ravel(), image.ravel())[0, 1] > 0.95


def test_a_wrong_folder_gives_the_example_a_sentence_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_custom.py", str(tmp_path / "nowhere"), "--device", "cpu"])
    with pytest.raises(SystemExit, match=r"^train_custom.py: .*nowhere.* \S+"):
        train_custom.main()


def test_a_data_set_of_regions_is_refused_by_the_loss_of_the_example():
    target = SimpleNamespace(regions=((1, 2), (2,)))
    with pytest.raises(train_custom.UserError, match="this example's loss is for plain labels"):
        train_custom.focal_and_dice(SimpleNamespace(batch_dice=False), target)
