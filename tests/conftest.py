"""Fixtures that tests of many rooms share; what they are made of is in builders/."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Processes of tests that run at once compute with one thread each, or they wait for each other's.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Triton decides once, when it is imported, which what is below does: without a card its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from builders.data import make_images, write_raw
from builders.models import make_model, small_model
from builders.training import prepare
from segfw.verbs.export import export_model

# Beside the checkout, never inside it: real, expert-labelled data for development.
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
THREADS = min(2, torch.get_num_threads())


@pytest.fixture(autouse=True)
def _two_threads_and_a_seed() -> None:
    torch.set_num_threads(THREADS)  # whatever the test before has set
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets; the test is skipped, with the reason, where there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real data sets are not present at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture
def make_raw(tmp_path: Path) -> Callable[..., Path]:
    """Writes a nnU-Net raw folder of ``data.blocks_case`` volumes: make_raw(cases=6) -> its path."""

    def make(cases: int = 6, name: str = "raw", channel: str = "MR") -> Path:
        return write_raw(tmp_path / name, cases, channel)

    return make


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A model file; the folder that it was made of is work/ beside it."""
    file = tmp_path / "model.zip"
    export_model(small_model(tmp_path / "work"), file)
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a drawn network, for ``images``."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of other shapes: a.nii.gz and b.nii.gz."""
    return make_images(tmp_path_factory.mktemp("images"), 2)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Preprocessed cases for ``training.run``."""
    return prepare(tmp_path_factory.mktemp("prepared"))
