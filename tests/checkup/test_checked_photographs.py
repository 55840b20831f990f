"""The check of photographs: areas in pixels, pictures in colour, and no left and right."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from segfw.checkup.thumbnails import MARGIN
from segfw.dataset.layouts import find_dataset
from segfw.planning import reasons
from segfw.planning.explain import explain_plan
from segfw.planning.fingerprint import scan_dataset
from segfw.planning.plan import Plan
from segfw.verbs.check import check_dataset

RED = (200, 30, 10)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three red photographs of 40 x 60 pixels, with a spot of 10 x 20 in the middle of each."""
    raw = tmp_path_factory.mktemp("photographs")
    for folder in ("images", "labels"):
        (raw / folder).mkdir()
    spot = np.zeros((40, 60), np.uint8)
    spot[15:25, 20:40] = 1
    for number in range(3):
        photo = Image.new("RGB", (60, 40), RED)
        photo.putpixel((number, 0), (0, 0, 0))  # no two are the same
        photo.save(raw / f"images/{number}.png")
        Image.fromarray(spot).save(raw / f"labels/{number}.png")
    return raw


def test_areas_are_in_pixels(photographs, tmp_path):
    report = check_dataset(photographs, output=tmp_path)
    assert [(label.unit, label.median) for label in report.labels] == [("px", 200.0)]
    text = report.text()
    assert "spacing in px (z, y, x): 1 x 1 x 1" in text
    assert "label 1 label_1: in 3 cases, 200 px (200 to 200)" in text
    assert "orientation" not in text
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "Areas in px" in page
    assert re.search(r"Median area<small>px</small>", page)
    assert not [word for word in ("patient", " ml", "Spacing mm", "millilitre", "axial") if word in page]


def test_thumbnails_show_the_colours(photographs, tmp_path):
    check_dataset(photographs, output=tmp_path)
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    png = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png.group(1)))).convert("RGB"))
    assert tuple(picture[-3 * MARGIN, picture.shape[1] // 2]) == RED


def test_the_plan_of_photographs_speaks_of_pixels(photographs, tmp_path):
    manifest, fingerprint = scan_dataset(find_dataset(photographs))
    found = reasons.of_dataset(manifest, (), (1, 1, 1), (0, 1, 2), "the median of 3 cases", fingerprint.length_unit)
    plan = Plan(
        dataset="photographs",
        preset="plain",
        gpu_memory_gb=8,
        as_published=False,
        channels=manifest.channels,
        labels=manifest.labels,
        training_cases=3,
        length_unit=fingerprint.length_unit,
        configurations={},
        reasons=found,
    )
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert "Target spacing (z, y, x) 1 x 1 x 1 px: the median of 3 cases." in explain_plan(plan)
