"""The two images are made alike, of files that are there and of the pinned versions; nothing else is in them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containers"
FILES = ("cpu.Dockerfile", "cuda.Dockerfile")
MAY_DIFFER = ("ARG TORCH_INDEX=", "ENV NVIDIA_")


def instructions(name: str) -> list[str]:
    """The instructions of a Dockerfile, each in one line, without comments."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if line and not line.startswith("#"))
    return [re.sub(r"\s+", " ", line) for line in re.sub(r"\\\n", " ", kept).splitlines()]


def copied(name: str) -> list[str]:
    """What is copied out of the clone."""
    sources: list[str] = []
    for line in instructions(name):
        if line.startswith("COPY "):
            sources += line.split()[1:-1]
    return sources


def test_both_are_made_by_the_same_steps():
    cpu, cuda = ([line for line in instructions(name) if not line.startswith(MAY_DIFFER)] for name in FILES)
    assert cpu == cuda
    assert len(cpu) > 8  # else this proves nothing


def test_they_differ_in_the_index_of_pytorch_and_in_what_is_said_of_a_gpu():
    cpu, cuda = (set(instructions(name)) for name in FILES)
    assert {line.partition("=")[0] for line in cpu - cuda} == {"ARG TORCH_INDEX"}
    assert {line.partition("=")[0] for line in cuda - cpu} == {"ARG TORCH_INDEX", "ENV NVIDIA_VISIBLE_DEVICES"}


def test_the_index_of_the_cpu_is_that_of_the_makefile():
    (argument,) = (line for line in instructions(FILES[0]) if line.startswith("ARG "))
    index = argument.removeprefix("ARG TORCH_INDEX=")
    assert f"--index-url {index} torch" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_its_pinned_version(name):
    installs = [line for line in instructions(name) if "pip install" in line]
    assert len(installs) == 2
    assert all("-c constraints.txt" in line for line in installs)
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {package.lower().replace("_", "-"): version for package, version in pinned.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.match(r"[A-Za-z0-9_-]+", line)[0].lower().replace("_", "-") for line in project["dependencies"]}
    assert needed - set(pinned) == set()


@pytest.mark.parametrize("name", FILES)
def test_its_python_is_one_that_segfw_supports(name):
    (base,) = (line.removeprefix("FROM ") for line in instructions(name) if line.startswith("FROM "))
    version = re.match(r"python:(\d+)\.(\d+)-", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = re.match(r">=(\d+)\.(\d+)", project["requires-python"])
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_not_ignored(name):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied(name)) == allowed
    assert all((ROOT / source).exists() for source in allowed)


def test_segfw_can_be_built_of_the_copied_files_alone(tmp_path):
    """As the images do it, without the network: the wheel holds every file of the package."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    clone = tmp_path / "clone"
    clone.mkdir()
    for source in copied(FILES[0]):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, clone / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, clone / source)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(clone)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("segfw-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("segfw/")}
    files = {path.relative_to(clone).as_posix() for path in (clone / "segfw").rglob("*") if path.is_file()}
    assert packed == files
