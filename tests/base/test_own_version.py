"""What is written beside results says which segfw made them, also where it was never installed."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import segfw
from segfw.base import own_version as module
from segfw.base.own_version import own_version


def absent(name: str) -> str:
    raise PackageNotFoundError(name)


def test_the_installed_version_is_told():
    assert own_version() == version("segfw")


def test_sources_that_nobody_installed_have_an_unknown_version(monkeypatch):
    monkeypatch.setattr(module, "version", absent)
    assert own_version() == "unknown"


def test_it_is_asked_for_in_one_place(monkeypatch):
    """Whoever asks the metadata by himself fails where segfw is not installed, as measure and --version did."""
    package = Path(segfw.__file__).parent
    asking = [path.name for path in package.rglob("*.py") if 'version("segfw")' in path.read_text(encoding="utf-8")]
    assert asking == ["own_version.py"]
    monkeypatch.setattr(module, "version", absent)
    assert segfw.__version__ == "unknown"
