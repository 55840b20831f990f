"""What others import: public names and their types, in this checkout, in the wheel, and beside a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from public_stub import STUB, stub_text

import segfw

ROOT = Path(segfw.__file__).parents[1]
pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install -e '.[test]' brings it")


def test_the_stub_is_made_of_the_records_as_they_are():
    assert STUB.read_text(encoding="utf-8") == stub_text(), "call python tests/public_stub.py"


def test_names_that_are_listed_and_the_version():
    assert {*segfw.__all__, "__version__"} <= set(dir(segfw))
    assert segfw.__version__.count(".") == 2


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of what is needed to install segfw, in a folder called segfw."""
    folder = tmp_path_factory.mktemp("parent") / "segfw"
    shutil.copytree(ROOT / "segfw", folder / "segfw", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def empty_environment(folder: Path) -> Path:
    """Python of an environment that has all packages of this one, but not segfw."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=300)
    python = folder / "bin" / "python"
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site_packages(folder) / "others.pth").write_text("\n".join(packages) + "\n")
    return python


def site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": str(environment)}))


def pip(*arguments: str | Path) -> None:
    """Runs pip without the network."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True, timeout=300
    )


def outside() -> dict[str, str]:
    """The variables of this process, without those by which Python would find this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, clone)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "segfw").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"segfw/py.typed", "segfw/__init__.pyi", "segfw/evaluation/report.html.jinja"} <= packed


USER_SCRIPT = """
from pathlib import Path

import numpy as np
from segfw import CasesFailed, Predictor, TrainSettings, UserError, load_model, predict, read_volume, run, train


def main(raw: Path, work: Path) -> float | None:
    try:
        run(raw, work, configurations=("3d_fullres",), folds=["0"], time_budget_s=60)
        scores = train(work, "3d_fullres", 1, TrainSettings(epochs=3), device="cpu")
        predictor = Predictor.of(load_model("WORK"), device="cpu")
        volume = read_volume("case.nii.gz")
        mask = predictor(volume.array, np.array(volume.geometry.affine))
        print(mask.shape, volume.geometry.spacing_mm)
        predict(work, raw / "imagesTs", "masks", configuration="3d_fullres", step=0.5)
    except (UserError, CasesFailed) as error:
        print(error)
        return None
    return scores.foreground_mean.dice if scores else None
"""
WRONG_SCRIPT = """
from segfw import TrainSettings, train

train("work", "2d", 0, epochs="3")
train("work", "2d", 0, epoch=3)
TrainSettings(seed=1.5)
"""
# Their types are not asked about, and reading them takes a minute.
MYPY_SETTINGS = "[mypy]\nstrict = true\n[mypy-torch.*,monai.*,scipy.*,matplotlib.*]\nfollow_imports = skip\n"


def test_a_users_script_is_checked_strictly_against_the_installed_wheel(wheel, tmp_path):
    pytest.importorskip("mypy")
    python = empty_environment(tmp_path / "environment")
    pip("install", "--no-deps", "--no-index", "--target", site_packages(tmp_path / "environment"), wheel)
    (tmp_path / "user.py").write_text(USER_SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG_SCRIPT)
    (tmp_path / "mypy.ini").write_text(MYPY_SETTINGS)
    command = [sys.executable, "-m", "mypy", "--python-executable", python, "--no-color-output", "user.py", "wrong.py"]
    checked = subprocess.run(command, cwd=tmp_path, env=outside(), capture_output=True, text=True, timeout=500)
    lines = [line for line in checked.stdout.splitlines() if " error: " in line]
    assert [line.split(": ")[0] for line in lines] == ["wrong.py:4", "wrong.py:5", "wrong.py:6"], checked.stdout
    assert "Unexpected keyword argument" in lines[1]


def test_segfw_is_found_in_a_folder_that_holds_a_clone_of_it(clone, tmp_path):
    python = empty_environment(tmp_path / "environment")
    pip("--python", python, "install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", clone)
    code = "from segfw import UserError; import segfw; print(segfw.__file__)"
    done = subprocess.run(
        [python, "-c", code], cwd=clone.parent, env=outside(), capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == str(clone / "segfw" / "__init__.py"), done.stderr
