"""Arrays in files: what is damaged is refused, with and without the seal of this version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segfw.base.array_files import SEAL_BYTES, UNREADABLE, open_array, open_checked_array, save_array
from segfw.base.errors import UserError

# Noise, of which every byte is stored
ARRAY = np.random.default_rng(3).normal(size=(1, 8, 16, 16)).astype(np.float32)
REMEDY = "make it again"


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_damaged_array_is_refused_when_it_is_opened(tmp_path: Path, is_sealed: bool) -> None:
    path = tmp_path / "a.b2nd"
    save_array(path, ARRAY)
    content = path.read_bytes() if is_sealed else path.read_bytes()[:-SEAL_BYTES]
    path.write_bytes(content)
    np.testing.assert_array_equal(open_checked_array(path, remedy=REMEDY)[:], ARRAY)
    middle = len(content) // 2
    refused = []
    # Words of the chunk's own table, which stands before its voxels, and a part of these
    for place in (*range(110, 230, 8), middle):
        path.write_bytes(content[:place] + b"\xff" * 8 + content[place + 8 :])
        try:
            open_checked_array(path, remedy=REMEDY)[:]
        except UserError as error:
            refused.append(str(error))
    assert all(each.startswith(f"{path}: is damaged (") and each.endswith("); make it again") for each in refused)
    assert len(refused) == 16 if is_sealed else len(refused) >= 8


def test_a_damaged_header_is_refused_without_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.b2nd"
    save_array(path, ARRAY)
    path.write_bytes(b"\xff" * 40 + path.read_bytes()[40:])
    with pytest.raises(UserError, match=r"a\.b2nd: is damaged \(.*copy it again"):
        open_array(path)
    assert OverflowError in UNREADABLE
