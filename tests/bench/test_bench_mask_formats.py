"""The measurement of formats, of a case that is small enough for a test."""

import pytest

from bench import mask_formats


def test_each_format_is_written_in_a_process_of_its_own(tmp_path, capsys):
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'segfw[dicom]'")
    work = tmp_path / "check"
    formats = ["rtstruct", "dicom-seg --sr"]
    mask_formats.main(["--structures", "5", "--size", "6", "32", "40", "--formats", *formats, "--work", str(work)])
    title, nothing, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("6x32x40 voxels, 5 structures (")
    assert nothing.startswith("nothing ")
    assert nothing.endswith("    0.0 MB")
    assert [line.split("  ")[0] for line in lines] == formats
    assert not work.exists()
