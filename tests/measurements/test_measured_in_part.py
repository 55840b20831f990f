"""Masks of an expert who drew some structures alone: of the others nothing is measured."""

import json

from builders.masks import box, folders, rows_of
from segfw.verbs.measure import measure

LIVER = box((1, 3), (1, 4), (2, 6))
TUMOUR = box((1, 2), (4, 6), (0, 5), value=2)


def test_what_nobody_drew_is_not_absent(tmp_path):
    folders(tmp_path, {"site_1": LIVER, "other_1": LIVER, "other_2": LIVER + TUMOUR}, {})
    description = {"labels": {"background": 0, "liver": 1, "tumour": 2}, "annotated": {"site_*": ["liver"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    found = measure(tmp_path / "reference", tmp_path / "m.csv", report=tmp_path / "m.html")
    rows = {(row["case"], row["structure"]): row for row in rows_of(tmp_path / "m.csv")}
    row = rows["site_1", "tumour"]
    assert (row["status"], row["reason"]) == ("not annotated", "by dataset.json nobody drew it in this case")
    assert row["volume_ml"] == row.get("voxels", "") == ""
    assert rows["other_1", "tumour"]["status"] == "absent"
    assert found.statuses["not annotated"] == 1
    assert "Not annotated" in (tmp_path / "m.html").read_text()
    # Other lists are other masks: they are measured anew
    (tmp_path / "dataset.json").write_text(json.dumps(description | {"annotated": {}}))
    again = measure(tmp_path / "reference", tmp_path / "m.csv")
    assert again.statuses == {"whole": 3, "cut": 1, "absent": 2, "small": 0, "failed": 0}
