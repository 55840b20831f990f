"""What is written beside results says which segfw made them, also where it was never installed."""

from importlib.metadata import PackageNotFoundError, version

from segfw.base import own_version as module
from segfw.base.own_version import own_version


def test_the_installed_version_is_told():
    assert own_version() == version("segfw")


def test_sources_that_nobody_installed_have_an_unknown_version(monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    assert own_version() == "unknown"
