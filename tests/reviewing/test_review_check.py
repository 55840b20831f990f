"""What the check of a review finds in its files and in its log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.review import BEN, Clock, accepted, drawn, masks_folder
from segfw.images.formats import write_labels
from segfw.reviewing.review_check import check_review
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.version_files import version_file

TESTS = Path(__file__).parents[1]


@pytest.fixture
def store(tmp_path):
    return ReviewStore.open(masks_folder(tmp_path), Clock())


def test_the_check_names_the_line_or_the_file_that_was_changed(store):
    for case in ("a", "b"):
        made = accepted(store, case)
        store.sign(case, BEN, name="B", meaning="review", version_sha256=made.sha256)
    check = check_review(store)
    assert (check.ok, check.versions, check.log.head_n) == (True, 2, 10)
    values = drawn()
    values[0, 0, 0] = 1
    write_labels(version_file(store.folder, "b", 1), values, store.read("b").geometry)
    (store.folder / "review" / "labels" / "a" / "v0007.nii.gz").write_bytes(b"")
    check = check_review(store)
    assert [problem.file for problem in check.files] == ["review/labels/b/v0001.nii.gz"]
    assert check.changed == {"b": ("mask",)}
    assert [note.file for note in check.notes] == ["review/labels/a/v0007.nii.gz"]
    path = store.log.path
    path.write_bytes(path.read_bytes().replace(b'"name":"B"', b'"name":"C"'))
    check = check_review(ReviewStore.open(store.folder))
    assert (check.ok, check.log.line) == (False, 5)


def test_a_review_runs_without_torch(tmp_path):
    masks = masks_folder(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from segfw.reviewing.review_store import ReviewStore\n"
        "from segfw.reviewing.review_check import check_review\n"
        "from segfw.reviewing.people import Person\n"
        "import segfw.reviewing.new_draft\n"
        "store = ReviewStore.open(Path(sys.argv[1]))\n"
        "person = Person(user='Anna')\n"
        "store.open_case('a', person)\n"
        "store.decide_all('a', person, dict.fromkeys(store.structures, 'accept'))\n"
        "made = store.finish('a', person)\n"
        "store.sign('a', person, name='A', meaning='review', version_sha256=made.sha256)\n"
        "assert store.image_files('a')\n"
        "assert check_review(store).ok\n"
        "print('done')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code, str(masks)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.stdout == "done\n", result.stderr
