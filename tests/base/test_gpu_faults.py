"""Versions that compute wrong or slowly on a GPU: refused, warned about, and named by the doctor; none is here."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from segfw.base import gpu_faults, machine
from segfw.base.gpu_faults import GpuLibraries, cudnn_text, faults_of, libraries_of, require_right_gpu
from segfw.base.records import UserError
from segfw.cli import main

CUDA = torch.device("cuda")
MPS = torch.device("mps")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def nvidia(torch_version: tuple[int, int], cudnn: int | None) -> GpuLibraries:
    return GpuLibraries(kind="cuda", torch_version=torch_version, cudnn=cudnn)


@pytest.mark.parametrize(
    "libraries, precision, what",
    [
        (nvidia((2, 8), 91002), BF16, "wrong"),
        (nvidia((2, 8), 90800), FP16, "wrong"),
        (nvidia((2, 8), 91300), BF16, "nothing"),  # cuDNN's own fault is mended there, and 2.8 does not go round it
        (nvidia((2, 8), 90701), BF16, "nothing"),
        (nvidia((2, 8), 91002), FP32, "nothing"),
        (nvidia((2, 9), 91002), BF16, "slow"),
        (nvidia((2, 9), 91400), FP16, "slow"),
        (nvidia((2, 10), 91002), BF16, "slow"),  # as some builds of it come
        (nvidia((2, 10), 91501), BF16, "nothing"),
        (nvidia((2, 13), 91900), BF16, "nothing"),
        (nvidia((2, 13), None), FP32, "slow"),
        (GpuLibraries(kind="rocm", torch_version=(2, 13), cudnn=3005000), BF16, "nothing"),
        (GpuLibraries(kind="mps", torch_version=(2, 13)), FP32, "nothing"),
        (GpuLibraries(kind="mps", torch_version=(2, 13)), BF16, "wrong"),
        (GpuLibraries(kind="mps", torch_version=(2, 13)), FP16, "wrong"),
        (GpuLibraries(kind="mps", torch_version=(2, 9)), FP32, "wrong"),
    ],
)
def test_known_faults(libraries, precision, what):
    found = [fault.is_wrong for fault in faults_of(libraries, precision)]
    assert found == {"nothing": [], "slow": [False], "wrong": [True]}[what]


def test_sentences_name_the_versions_and_a_remedy():
    (wrong,) = faults_of(nvidia((2, 8), 91002), BF16)
    assert "cuDNN 9.10.2 under PyTorch 2.8 computes 3-D convolutions of 16 bit wrong" in wrong.sentence
    assert "install PyTorch 2.10 or newer with cuDNN 9.15.0 or newer" in wrong.sentence
    (slow,) = faults_of(nvidia((2, 9), 91002), BF16)
    assert "four times as slow" in slow.sentence


@pytest.mark.parametrize("version, text", [(91002, "9.10.2"), (90800, "9.8.0"), (91501, "9.15.1"), (8907, "8.9.7")])
def test_versions_of_cudnn_are_read_as_they_are_counted(version, text):
    assert cudnn_text(version) == text


def test_what_is_installed(monkeypatch):
    assert libraries_of(torch.device("cpu")) is None
    monkeypatch.setattr(torch, "__version__", "2.10.1+cu128")
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert libraries_of(CUDA) == replace(nvidia((2, 10), 91002), runtime="12.8")
    assert libraries_of(MPS).text() == "Metal"
    assert libraries_of(CUDA).text() == "CUDA 12.8, cuDNN 9.10.2"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert libraries_of(CUDA).kind == "rocm"
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: False)
    assert libraries_of(CUDA).text() == "ROCm 6.4, no MIOpen"


@pytest.fixture
def installed(monkeypatch):
    """Has so much be installed for every GPU."""

    def pretend(libraries: GpuLibraries) -> None:
        require_right_gpu.cache_clear()
        monkeypatch.setattr(gpu_faults, "libraries_of", lambda device: libraries)
        monkeypatch.setattr(machine, "libraries_of", lambda device: libraries)

    yield pretend
    require_right_gpu.cache_clear()


def test_what_computes_wrong_is_refused_and_what_is_slow_warned_about_once(installed, capsys):
    installed(nvidia((2, 8), 91002))
    with pytest.raises(UserError, match=r"cuda: cuDNN 9.10.2 under PyTorch 2.8 .* or take --precision fp32"):
        require_right_gpu(CUDA, BF16)
    require_right_gpu(CUDA, FP32)
    assert capsys.readouterr().out == ""
    installed(nvidia((2, 9), 91002))
    require_right_gpu(CUDA, BF16)
    require_right_gpu(CUDA, BF16)
    assert capsys.readouterr().out.count("warning: cuda: with cuDNN 9.10.2") == 1


def test_the_doctor_names_the_library_and_its_fault(installed, capsys, monkeypatch):
    installed(replace(nvidia((2, 9), 91002), runtime="12.8"))
    monkeypatch.setattr(machine, "pick_precision", lambda name, device: BF16)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "Libraries of the GPU: CUDA 12.8, cuDNN 9.10.2" in shown
    assert "With cuDNN 9.10.2 under PyTorch 2.9 3-D convolutions of 16 bit can be four times as slow" in shown
    assert "Nothing is wrong" not in shown


def test_training_and_prediction_ask_before_they_compute(installed, monkeypatch, packed):
    """On the CPU through the same calls: what is installed is made up, and the device that is asked about too."""
    from segfw.inference.predictor import Predictor
    from segfw.model.load import load_model

    installed(GpuLibraries(kind="mps", torch_version=(2, 13)))
    model = load_model(packed)
    with pytest.raises(UserError, match="no transposed 3-D convolution of 16 bit for Apple's GPU: take precision fp32"):
        Predictor.of(model, device="cpu", precision="bf16")
    assert Predictor.of(model, device="cpu", precision="fp32").precision == FP32


def test_a_run_is_refused_before_an_image_is_read(installed, monkeypatch, tmp_path, capsys):
    installed(GpuLibraries(kind="mps", torch_version=(2, 13)))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    nowhere = tmp_path / "raw"
    assert main(["run", str(nowhere), str(tmp_path / "work"), "--device", "mps", "--precision", "fp16"]) == 2
    assert "mps: PyTorch has no transposed 3-D convolution of 16 bit" in capsys.readouterr().err


def test_the_package_asks_for_no_release_of_torch_that_is_known_to_be_wrong():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = next(each for each in map(Requirement, project["dependencies"]) if each.name == "torch")
    assert "2.8.0" not in wanted.specifier
    assert "2.9.1" not in wanted.specifier
    assert "2.13.0" in wanted.specifier
