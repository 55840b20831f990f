"""The comparison of prediction: its phantom network, limits, notes and table, and a run with a made nnU-Net."""

import json
import os
import sys
import time
from argparse import Namespace

import numpy as np
import pytest
import torch

from bench.against_nnunet import prediction
from bench.against_nnunet.prediction import Prediction, build_parser, seconds_by_part
from bench.against_nnunet.prediction_phantom import FEATURES, network_shape, phantom_plan, smooth_weights
from bench.against_nnunet.prediction_table import table
from bench.figures import dices
from bench.measure import Measured, measure
from segfw.networks import build_network
from segfw.planning.plan import FULLRES
from segfw.verbs.predict import predict


def arguments(*words: object) -> Namespace:
    return build_parser().parse_args([str(word) for word in words])


def test_the_phantoms_network_is_of_the_size_of_a_clinical_one():
    network = phantom_plan(15, (80, 160, 160), (300, 512, 512), FEATURES).configuration(FULLRES).network
    assert network.downsampling == (16, 32, 32)
    with torch.device("meta"):
        count = sum(tensor.numel() for tensor in build_network(network).parameters())
    assert count / 1e6 == pytest.approx(30.8, abs=0.5)
    assert network_shape((300, 512, 512)) == (250, 448, 448)


def test_its_classes_form_regions():
    spec = phantom_plan(6, (32, 64, 64), (40, 80, 80), (8, 8, 16, 16, 16)).configuration(FULLRES).network
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 32, 64, 64)).astype(np.float32))
    torch.manual_seed(0)
    changes = []
    for weights in (smooth_weights(spec, seed=0), build_network(spec).state_dict()):
        network = build_network(spec).eval()
        network.load_state_dict(weights)
        with torch.inference_mode():
            winners = network(image)[0].argmax(0)
        assert len(winners.unique()) > 2
        changes.append(float((winners[..., 1:] != winners[..., :-1]).float().mean()))
    assert changes[0] < changes[1] / 3  # neighbours that differ, against those of wholly random weights


def test_a_run_is_ended_at_its_limits_with_all_its_processes(tmp_path):
    hold = "import time; block = bytearray(b'x') * (120 * 2**20); time.sleep(900)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    started = time.monotonic()
    command, how = [sys.executable, "-c", parent], {"env": os.environ, "log": tmp_path / "log"}
    stopped = measure(command, most_gb=0.1, **how)
    assert stopped.stopped == "more than 0.1 GB"
    assert stopped.peak_pss_gb > 0.1
    assert measure(command, most_s=0.5, **how).stopped == "longer than 0.5 s"
    assert time.monotonic() - started < 600  # neither slept to its end
    killed = measure([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], **how)
    assert killed.stopped == "killed by the system"
    assert measure([sys.executable, "-c", "pass"], most_gb=9, most_s=60, **how).stopped == ""


def test_notes_of_nnunets_functions_become_sums(tmp_path):
    notes = [("read", 1.0), ("read_and_preprocess", 3.5), ("network", 2.0), ("network", 4.0), ("read", 0.25)]
    lines = [json.dumps({"part": part, "seconds": seconds}) for part, seconds in notes]
    (tmp_path / "notes").write_text("\n".join(lines) + "\n")
    assert seconds_by_part(tmp_path / "notes") == {"read": 1.25, "preprocess": 2.25, "network": 6.0}


def test_dice_of_two_masks_by_hand():
    first, second = np.array([0, 1, 1, 2, 2, 4]), np.array([0, 1, 2, 2, 2, 0])
    assert dices(first, second) == {1: 2 / 3, 2: 4 / 5, 4: 0}


def test_the_table_says_what_was_measured_stopped_and_extrapolated():
    run = {"wall_s": 100.0, "peak_pss_gb": 8.0, "stopped": "", "seconds": {"network": 60.0, "restore": 30.0}}
    ours = {"wall_s": 10.0, "peak_pss_gb": 2.0, "stopped": "", "seconds": {"network": 6.0, "restore": 1.5}}
    stopped = run | {"stopped": "more than 20 GB", "peak_pss_gb": 20.5, "seconds": {"network": 60.0}}
    part = {"slices": 30, "of": 300, "extrapolated_gb": 70.0, "extrapolated_restore_s": 660.0}
    common = {"images": 1, "parameters": 30_800_000, "logits": "random, smooth"}
    common |= {"settings": {"step": 1.0, "mirroring": False}, "segfw": ours}
    whole = common | {"nnunet": run, "agreement": {"cases": 1, "equal_voxels": 0.99, "dice": 0.9}}
    kept = {"machine": {"cpus": 2}, "threads": 2, "device": "cpu", "precision": "bfloat16"}
    text = table(kept | {"results": {"few": whole, "many": common | {"nnunet": stopped, "nnunet_part": part}}})
    assert "| few | nnU-Net | 100.0 | 8.00 | - | - | 60.0 | 30.0 | - |" in text
    assert "| few | times segfw | 10.0 | 4.0 | - | - | 10.0 | 20.0 | - |" in text
    assert "| many | nnU-Net | stopped: more than 20 GB | over 20.5 | - | - | 60.0 | - | - |" in text
    assert "| many | nnU-Net, extrapolated |  | ~70.0 |  |  |  | ~660.0 |  |" in text
    assert "| many | times segfw | - | ~35.0 | - | - | 10.0 | 440.0 | - |" in text
    assert "measured on 30 of 300 slices and extrapolated" in text
    assert "99.000 % of voxels, mean Dice 0.9000" in text


def test_a_phantom_is_predicted_and_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    sizes = ["--phantom-size", 20, 24, 28, "--phantom-patch", 8, 16, 16, "--features", 4, 8, "--threads", 1]
    args = arguments("--keep", tmp_path, *sizes, "--precision", "fp32")
    calls = []

    def made(part: Prediction, name: str) -> dict:
        """Stands in for a program: predicts in this process, as segfw does."""
        calls.append(name)
        predict(part.model, part.images, part.home / f"masks_{name}", device="cpu", step=1.0, mirroring=False)
        run = Measured(wall_s=1, peak_pss_gb=1, peak_rss_gb=1, most_processes=1, samples=1)
        return vars(run) | {"seconds": {"network": 1.0}}

    monkeypatch.setattr(Prediction, "export", lambda self: calls.append("export") or {})
    monkeypatch.setattr(Prediction, "segfw", lambda self: made(self, "segfw"))
    monkeypatch.setattr(Prediction, "nnunet", lambda self: made(self, "nnunet"))
    part = Prediction(args, "phantom_5", {"step": 1.0, "mirroring": False, "classes": 5})
    result = part.run(part.prepare_phantom)
    assert result["agreement"] == {"cases": 1, "equal_voxels": 1.0, "dice": 1.0}
    assert result["images"] == 1
    assert calls == ["export", "segfw", "nnunet"]
    assert Prediction(args, "phantom_5", part.settings).run(part.prepare_phantom) == result
    assert len(calls) == 3


def test_a_program_that_was_stopped_has_its_restoring_measured_on_what_fits(tmp_path, monkeypatch):
    args = arguments("--keep", tmp_path, "--phantom-size", 300, 512, 512, "--most-gb", 20)
    part = Prediction(args, "phantom_105", {"step": 1.0, "mirroring": False, "classes": 105})
    seen = []

    def wrapped(self: Prediction, what: str, options: list) -> dict:
        seen.append((what, options))
        return {"peak_pss_gb": 8.0, "seconds": {"restore": 60.0}}

    monkeypatch.setattr(Prediction, "_wrapped", wrapped)
    found = part.nnunet_part()
    ((what, options),) = seen
    assert what == "export"
    old, new = options[1:4], options[5:8]
    assert old[1:] == [448, 448]
    assert new[1:] == [512, 512]
    assert new[0] / 300 == pytest.approx(old[0] / 250, abs=0.01)
    # 105 classes of 250 and 300 slices are 29 and 62 GB at 6 and 8 bytes; a tenth of them takes half of 20 GB.
    assert new[0] == found["slices"] == 33
    assert found["extrapolated_restore_s"] == pytest.approx(60 * 300 / 33)


def test_the_hippocampus_needs_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "require_nnunet", lambda python: None)
    with pytest.raises(SystemExit, match="--data is missing"):
        prediction.main(["--keep", str(tmp_path / "keep"), "--parts", "hippocampus"])
