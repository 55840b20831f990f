"""The page of a check: its tables and pictures, on reports and slices made by hand."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segfw.base.figures import PALETTE, scale_bar
from segfw.checkup import check_page
from segfw.checkup.case_details import CaseDetails, ChannelMeasure, CheckedCase, LabelMeasure, Slice
from segfw.checkup.check_page import SAMPLE, findings_table, labels_table, sizes_table, write_report_html
from segfw.checkup.check_report import CheckReport, LabelSummary
from segfw.checkup.examine import Examination
from segfw.checkup.thumbnails import BAR_SHARE, MARGIN, thumbnail
from segfw.dataset.cases import Finding, FoundDataset
from segfw.images.units import PICTURE, SCAN

CHANNEL = ChannelMeasure(minimum=-1000, low=-990.5, median=12.25, high=301.125, maximum=1500)


def label(size: float) -> LabelMeasure:
    return LabelMeasure(
        voxels=10,
        size=size,
        unit="ml",
        parts=1,
        centroid_mm=(1, 2, 3),
        centre=(1, 2, 3),
        dark_share=0,
        level=0.5,
        is_cut=False,
    )


def checked(case: str, sizes: dict[int, float]) -> CheckedCase:
    return CheckedCase(
        id=case,
        shape=(20, 30, 40),
        spacing_mm=(5, 0.75, 0.75),
        cropped_shape=(20, 30, 40),
        label_voxels={},
        orientation="LPS",
        channels=(CHANNEL,),
        labels={value: label(size) for value, size in sizes.items()},
    )


def details(image: np.ndarray, mask: np.ndarray, size_mm: tuple[float, float] = (60, 80)) -> CaseDetails:
    return CaseDetails(
        orientation="LPS",
        channels=(CHANNEL,),
        labels={},
        signature=np.zeros(1),
        window=(-160, 240),
        thumbnail=Slice(image=image, mask=mask, size_mm=size_mm),
    )


def finding(case: str, severity: str = "warning", **more) -> Finding:
    values = {"kind": "label-island", "what": "a part lies far", "remedy": "look at it"} | more
    return Finding(severity=severity, case=case, **values)


def report_of(cases: list[CheckedCase], names: dict[int, str], findings: tuple[Finding, ...] = ()) -> CheckReport:
    labels = []
    for value, name in names.items():
        sizes = [case.labels[value].size for case in cases if value in case.labels]
        labels.append(
            LabelSummary(
                name=name,
                value=value,
                cases=len(sizes),
                unit="ml",
                smallest=min(sizes, default=None),
                median=float(np.median(sizes)) if sizes else None,
                largest=max(sizes, default=None),
            )
        )
    return CheckReport(
        name="Torsos",
        root="raw",
        layout="nnunet",
        case_count=len(cases),
        cases=tuple(cases),
        labels=tuple(labels),
        findings=findings,
    )


def page_of(folder: Path, report: CheckReport, slices: dict[str, CaseDetails], **more) -> str:
    found = FoundDataset(name="Torsos", root=Path("raw"), layout="nnunet", channels=None, labels=None, cases=())
    write_report_html(folder / "check.html", Examination(report=report, details=slices), found, **more)
    return (folder / "check.html").read_text(encoding="utf-8")


def shown_figures(page: str) -> dict[str, str]:
    return {name: figure for figure, name in re.findall(r"<b>(\d+)</b><span>([a-z]+)</span>", page)}


PLAIN = details(np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8))


@pytest.mark.parametrize(("number", "noun"), [(1, "case"), (2, "cases")])
def test_counts_are_words_that_fit_them(tmp_path, number, noun):
    cases = [checked(f"c{index}", {}) for index in range(number)]
    findings = (finding("c0", "error"), finding("c0"), finding("c0"))
    page = page_of(tmp_path, report_of(cases, {}, findings), {case.id: PLAIN for case in cases})
    assert shown_figures(page) == {noun: str(number), "error": "1", "warnings": "2", "notes": "0"}
    assert "<h1>Data check of Torsos</h1>" in page


def test_the_table_of_labels_tells_how_many_have_it_and_how_large_it_is():
    report = report_of([checked("a", {1: 2.0, 2: 7.0}), checked("b", {1: 4.0}), checked("c", {})], {1: "liver", 2: "x"})
    table = labels_table(report)
    assert [(column.title, column.unit) for column in table.columns] == [
        ("Label", ""),
        ("Value", ""),
        ("Cases", "of 3"),
        ("Smallest volume", "ml"),
        ("Median volume", "ml"),
        ("Largest volume", "ml"),
    ]
    assert [[column.shown(row) for column in table.columns] for row in (0, 1)] == [
        ["liver", "1", "2", "2", "3", "4"],
        ["x", "2", "1", "7", "7", "7"],
    ]


def test_sizes_are_a_row_a_case_or_with_many_labels_a_row_each():
    cases = [checked("a", {1: 2.0}), checked("b", {1: 4.0, 2: 0.5})]
    few = sizes_table(report_of(cases, {1: "liver", 2: "lesion"}), {})
    assert [(column.title, column.unit, list(column.values)) for column in few.columns] == [
        ("Case", "", ["a", "b"]),
        ("liver", "ml", [2.0, 4.0]),
        ("lesion", "ml", [None, 0.5]),
    ]
    many = sizes_table(report_of(cases, {value: f"l{value}" for value in range(1, 14)}), {})
    assert [column.title for column in many.columns] == ["Case", "Label", "Volume"]
    assert [[column.shown(row) for column in many.columns] for row in (0, 1, 14)] == [
        ["a", "l1", "2"],
        ["a", "l2", "–"],
        ["b", "l2", "0.5"],
    ]
    assert many.rows == 2 * 13


def test_findings_say_file_remedy_and_what_can_be_repaired():
    table = findings_table((finding("a", fixable=True, file="a.nii"), finding("")), {"a": "#case-1"})
    assert [[column.shown(row) for column in table.columns] for row in (0, 1)] == [
        ["a", "warning", "label-island", "a.nii: a part lies far", "look at it; --fix can do it"],
        ["data set", "warning", "label-island", "a part lies far", "look at it"],
    ]
    assert table.columns[0].links == {"a": "#case-1"}


def test_of_many_cases_those_with_findings_and_a_sample_are_shown(tmp_path):
    cases = [checked(f"c{index:03}", {}) for index in range(100)]
    slices = {case.id: PLAIN for case in cases}
    page = page_of(tmp_path, report_of(cases, {}, (finding("c099"), finding("c050", "error"))), slices)
    shown = re.findall(r'<figure id="case-\d+">.*?<b>(c\d+)</b>', page, re.DOTALL)
    assert shown[:4] == ["c099", "c050", "c000", "c004"]  # 98 others, of which every fourth
    assert len(shown) == 2 + SAMPLE
    assert f"{2 + SAMPLE} of 100 cases are shown: 2 with findings, and a sample of the others" in page
    assert 'href="#case-1"' in page


def test_a_page_of_500_cases_and_100_labels_is_below_5_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    noise = details(
        rng.integers(0, 255, (384, 384)).astype(np.uint8), np.kron(np.arange(16).reshape(4, 4), np.ones((96, 96), int))
    )
    names = {value: f"structure_{value}" for value in range(1, 101)}
    cases = [checked(f"case_{index:03}", {value: rng.random() * 1000 for value in names}) for index in range(500)]
    findings = tuple(finding(f"case_{index:03}") for index in range(300))
    page = page_of(tmp_path, report_of(cases, names, findings), {case.id: noise for case in cases})
    assert len(page) < 5_000_000
    data = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    assert [table["rows"] for table in data] == [300, 500, 50_000]
    shown = page.count("data:image/png;base64,")
    assert 10 < shown < 300
    assert f"{shown} of 500 cases are shown" in page


def test_names_cannot_break_out_of_the_page(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    cases = [checked(f"{index}{evil}", {1: 1.0}) for index in range(210)]  # tables of data as well
    report = report_of(cases, {1: evil}, (finding(cases[7].id, what=evil),))
    page = page_of(tmp_path, report, {case.id: PLAIN for case in cases}, picture_bytes=20_000)
    assert "data:image/png" in page
    assert "<img src=x" not in page
    assert page.count("</script>") == page.count("<script")


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_a_thumbnail_shows_the_slice_in_true_proportions_with_letters_and_scale_bar_beside_it():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 5:15] = 3
    made = details(np.full((30, 40), 128, np.uint8), mask)
    picture = pixels(thumbnail(made, SCAN, {3: 1}, pixels=400))
    inside = picture[MARGIN : MARGIN + 300, MARGIN : MARGIN + 400]  # 60 x 80 mm at 5 pixels a mm
    assert picture.shape == (300 + 3 * MARGIN, 400 + 2 * MARGIN, 3)
    assert (inside.sum(2) > 0).all()
    # Turned to how radiologists look at it: what was near the beginning of both axes is at the end.
    color = np.array([int(PALETTE[0][at : at + 2], 16) for at in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(inside.astype(int) - color).sum(2) < 40)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (150, 249, 250, 349)
    outside = picture.copy()
    outside[MARGIN : MARGIN + 300, MARGIN : MARGIN + 400] = 0
    strips = (outside[:, :MARGIN], outside[:, -MARGIN:], outside[:MARGIN], outside[MARGIN + 300 : 2 * MARGIN + 300])
    assert all(strip.any() for strip in strips)  # R, L, A and P
    bar = outside[-MARGIN // 2 - 1]
    assert bar[MARGIN + 1 : MARGIN + 99].any(1).all()  # 20 mm are 100 pixels
    photograph = CaseDetails(**{**vars(made), "has_directions": False})
    bare = pixels(thumbnail(photograph, PICTURE, {3: 1}, pixels=400))
    assert not bare[:MARGIN].any()


@pytest.mark.parametrize(("width", "bar"), [(80, 20), (300, 100), (1, 0.2), (126, 50)])
def test_a_scale_bar_is_a_round_length(width, bar):
    assert scale_bar(width, BAR_SHARE) == pytest.approx(bar)


def test_pictures_take_no_more_bytes_than_there_is_room_for():
    room = check_page.Room(10)
    assert [room.takes(bytes(size)) for size in (6, 6, 4, 1)] == [True, False, True, False]
