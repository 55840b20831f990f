"""The version of segfw that is at work."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """As it was installed; 'unknown' where it is run from its sources without being installed."""
    try:
        return version("segfw")
    except PackageNotFoundError:
        return "unknown"
