"""Which folds, checkpoints, trainers and names of weights of nnU-Net are taken."""

from pathlib import Path

import pytest
import torch

from builders.nnunet import plans, save_checkpoint, state, trained_folder
from segfw.base.records import UserError
from segfw.cli import main
from segfw.model.load import load_model
from segfw.nnunet.trainers import is_known_trainer
from segfw.verbs.import_nnunet import import_nnunet


def test_weights_of_a_compiled_network_and_the_best_ones(tmp_path):
    folder = trained_folder(tmp_path)
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in state(seed=1).items()}
    save_checkpoint(folder / "fold_0" / "checkpoint_best.pth", compiled)
    import_nnunet(folder, tmp_path / "out")
    last, best = (load_model(tmp_path / "out", best=best).weights["0"] for best in (False, True))
    name = "encoder.0.0.0.weight"
    assert torch.equal(last[name], state()["encoder.stages.0.0.convs.0.conv.weight"])
    assert torch.equal(best[name], state(seed=1)["encoder.stages.0.0.convs.0.conv.weight"])


@pytest.mark.parametrize("wrapper", ["module.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_of_weights_are_taken_off_in_any_order(tmp_path, wrapper):
    weights = {f"{wrapper}{name}": tensor for name, tensor in state().items()}
    import_nnunet(trained_folder(tmp_path, weights=weights), tmp_path / "out")
    first = load_model(tmp_path / "out").weights["0"]["encoder.0.0.0.weight"]
    assert torch.equal(first, state()["encoder.stages.0.0.convs.0.conv.weight"])


def as_best(folder: Path, fold: str, *, name: str = "checkpoint_best.pth") -> None:
    """The fold has its only checkpoint under another name, as while it is trained."""
    (folder / f"fold_{fold}" / "checkpoint_final.pth").rename(folder / f"fold_{fold}" / name)


def folds_in(model: Path) -> dict[str, list[str]]:
    return {path.name: sorted(file.name for file in path.iterdir()) for path in sorted(model.glob("runs/*/*"))}


def test_folds_without_a_final_checkpoint_are_left_out_where_others_have_one(tmp_path, capsys):
    folder = trained_folder(tmp_path, folds=("0", "1", "2", "3"))
    as_best(folder, "1")
    as_best(folder, "3", name="checkpoint_latest.pth")
    import_nnunet(folder, tmp_path / "out")
    assert folds_in(tmp_path / "out") == {f"fold_{fold}": ["weights.safetensors"] for fold in (0, 2)}
    printed = capsys.readouterr().out
    for fold in (1, 3):
        assert f"note: fold {fold} of 3d_fullres has no final checkpoint and is left out" in printed
    assert "3d_fullres: 2 folds (0, 2)" in printed


def test_best_checkpoints_alone_are_the_weights_and_the_best_ones(tmp_path, capsys):
    folder = trained_folder(tmp_path, folds=("0", "1"))
    as_best(folder, "0")
    as_best(folder, "1")
    import_nnunet(folder, tmp_path / "out")
    last, best = (load_model(tmp_path / "out", best=best).weights["1"] for best in (False, True))
    assert all(torch.equal(tensor, best[name]) for name, tensor in last.items())
    assert "note: fold 1 of 3d_fullres has no final checkpoint; its best one is taken" in capsys.readouterr().out


def test_a_damaged_best_checkpoint_does_not_stand_in_the_way_of_a_final_one(tmp_path, capsys):
    folder = trained_folder(tmp_path)
    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"x")
    import_nnunet(folder, tmp_path / "out")
    assert folds_in(tmp_path / "out") == {"fold_0": ["weights.safetensors"]}
    printed = capsys.readouterr().out
    assert "note: checkpoint_best.pth: is no whole checkpoint" in printed
    assert "fold 0 of 3d_fullres has no best weights" in printed
    with pytest.raises(UserError, match="no weights of a best epoch were kept; predict with best=False"):
        load_model(tmp_path / "out", best=True)


def test_a_configuration_still_in_training_is_left_out_beside_others(tmp_path, capsys):
    written = plans()
    written["configurations"]["2nd"] = {"inherits_from": "3d_fullres"}
    trained_folder(tmp_path / "all", written=written)
    unfinished = trained_folder(tmp_path / "all", written=written, name="2nd")
    as_best(unfinished, "0", name="checkpoint_latest.pth")
    assert list(import_nnunet(tmp_path / "all", tmp_path / "out").configurations) == ["3d_fullres"]
    assert "note: nnUNetTrainer__nnUNetPlans__2nd is left out, because no fold" in capsys.readouterr().out
    with pytest.raises(UserError, match="no fold holds checkpoint_final.pth or checkpoint_best.pth"):
        import_nnunet(unfinished, tmp_path / "other")


def test_convolutions_without_bias_and_norms_without_weights_by_the_plans(tmp_path):
    """What is not there adds 0 and multiplies by 1; the last layers always have a bias."""
    written = plans()
    network = written["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network |= {"conv_bias": False, "norm_op_kwargs": {"eps": 1e-5, "affine": False}}
    weights = {
        name: tensor
        for name, tensor in state().items()
        if "norm" not in name and "modules.1" not in name and ("seg_layers" in name or name.endswith("weight"))
    }
    import_nnunet(trained_folder(tmp_path, written=written, weights=weights), tmp_path / "out")
    found = load_model(tmp_path / "out").weights["0"]
    assert found["encoder.1.1.0.bias"].tolist() == found["encoder.1.1.1.bias"].tolist() == [0] * 8
    assert found["encoder.1.1.1.weight"].tolist() == [1] * 8
    assert found["up.1.bias"].tolist() == [0] * 8
    assert torch.equal(found["heads.0.bias"], weights["decoder.seg_layers.1.bias"])
    del weights["decoder.seg_layers.1.bias"]
    with pytest.raises(UserError, match="holds no weights 'decoder.seg_layers.1.bias'"):
        import_nnunet(trained_folder(tmp_path / "b", written=written, weights=weights), tmp_path / "other")


def test_a_trainer_that_is_trusted_must_still_have_the_plans_network(tmp_path, capsys):
    folder = trained_folder(tmp_path / "a", trainer="nnUNetTrainerMyLoss")
    assert main(["import-nnunet", str(folder), str(tmp_path / "out")]) == 2
    assert "say so by --trust-trainer" in capsys.readouterr().err
    assert main(["import-nnunet", str(folder), str(tmp_path / "out"), "--trust-trainer"]) == 0
    assert load_model(tmp_path / "out").weights["0"].keys() >= {"heads.0.weight"}
    other = trained_folder(tmp_path / "b", trainer="nnUNetTrainerMyNetwork", weights=state() | {"gate": torch.ones(1)})
    with pytest.raises(UserError, match="holds weights 'gate' that the plans' network has not"):
        import_nnunet(other, tmp_path / "other", trust_trainer=True)


def test_unknown_trainers_are_refused_unless_the_network_is_given(tmp_path):
    folder = trained_folder(tmp_path, trainer="nnUNetTrainerUMamba")
    with pytest.raises(UserError, match="trained by nnUNetTrainerUMamba"):
        import_nnunet(folder, tmp_path / "out")
    weights = state()

    class Given(torch.nn.Module):
        def state_dict(self, *args, **kwargs):
            return dict(weights)

    import_nnunet(folder, tmp_path / "out", build_network=lambda spec: Given())
    assert load_model(tmp_path / "out").weights["0"].keys() == weights.keys()
    del weights["decoder.seg_layers.0.bias"]
    with pytest.raises(UserError, match="'decoder.seg_layers.0.bias' are not those of build_network"):
        import_nnunet(folder, tmp_path / "other", build_network=lambda spec: Given())


@pytest.mark.parametrize(
    "name",
    [
        *("nnUNetTrainer", "nnUNetTrainer_250epochs_NoMirroring", "nnUNetTrainerDA5_10epochs", "nnUNet_Trainer_BS8"),
        "nnUNetTrainerBenchmark_5epochs_noDataLoading",
    ],
)
def test_known_trainers(name):
    assert is_known_trainer(name)
    assert not is_known_trainer(f"{name}Custom")
    assert not is_known_trainer("nnUNetTrainerBN")
