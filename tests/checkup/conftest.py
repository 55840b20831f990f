"""What the tests of the data check share."""

from pathlib import Path

import pytest

from builders.bodies import write_bodies


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A clean nnU-Net raw folder of twelve bodies."""
    return write_bodies(tmp_path / "raw")
