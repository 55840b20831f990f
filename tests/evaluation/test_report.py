"""The report: texts, plots and pictures."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from builders.masks import SHAPE, SPACING_MM, box, score
from segfw.base.figures import label_color, scale_bar
from segfw.base.tables import LONG_ROWS
from segfw.dataset.labels import LabelSet, Region
from segfw.evaluation import overlays, report, result_files
from segfw.evaluation.compare import compare_cases
from segfw.evaluation.confusion import confusion
from segfw.evaluation.lesions import lesion_counts
from segfw.evaluation.metrics import Measures, label_score
from segfw.evaluation.overlays import (
    BAR_SHARE,
    Overlay,
    draw_overlay,
    length_text,
    overlay_cases,
    shown_slices,
    upper_edge,
    window_of,
)
from segfw.evaluation.report import curve_lines, draw_curve, draw_scores, headline, plot_text, write_report
from segfw.evaluation.report_tables import case_table
from segfw.evaluation.summary import summarize
from segfw.evaluation.surface import SurfaceScore
from segfw.evaluation.text import folds_table
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.images.units import PICTURE, SCAN
from segfw.verbs.evaluate import evaluate

NAMES = ("background", "liver", "tumour")
PNG = b"\x89PNG\r\n"


def test_report_escapes_every_text(tmp_path):
    evil = "<b>&\"'"
    cases = {evil: {evil: score(box((0, 1)), box((0, 1)))}}
    comparison = compare_cases(cases, cases | {evil * 2: cases[evil]}, (evil, evil))
    scores = summarize(cases, notes=[evil]).model_copy(update={"comparison": comparison})
    picture = Overlay(case=evil, rank=evil, dice=1.0, image_png=PNG)
    write_report(tmp_path / "r.html", title=evil, scores=scores, overlays=[picture], curve=None, facts={evil: evil})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert evil not in page
    assert page.count("&lt;b&gt;&amp;&#34;&#39;") >= 13
    assert '<td class="text">&lt;b&gt;' in page


def test_no_case_is_shown_where_none_has_a_score():
    assert overlay_cases(summarize({"a": {"liver": score(box(), box())}})) == {}


def test_report_of_nothing_and_of_a_curve(tmp_path):
    scores = summarize({"a": {"liver": score(box(), box())}})
    curve = [{"epoch": 0, "train_loss": 1.0}, {"epoch": 1, "train_loss": 0.5, "val_dice": 0.3, "learning_rate": 0.1}]
    write_report(tmp_path / "r.html", title="t", scores=scores, overlays=[], curve=curve, facts={})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1
    assert "<b>–</b><span>Dice of liver: one case</span>" in page
    assert draw_curve([{"epoch": 0, "learning_rate": 0.1}]) is None
    lines = curve_lines([{"epoch": 0, "val_dice": 0.5}, {"epoch": 1}, {"epoch": 2, "val_dice": 0.7}])
    assert [(line.epochs, line.values) for line in lines["Dice"]] == [([1, 3], [0.5, 0.7])]


@pytest.mark.parametrize(
    "overlaps, expected",
    [
        ({"a": 1}, {"best": "a"}),
        ({"a": 1, "b": 2}, {"best": "b", "worst": "a"}),
        ({"a": 2, "b": 0, "c": 3}, {"best": "c", "median": "a", "worst": "b"}),
        ({"a": 4, "b": 3, "c": 2, "d": 1}, {"best": "a", "median": "c", "worst": "d"}),
        ({"a": 4, "b": 3, "c": 2, "d": 1, "e": 0}, {"best": "a", "median": "c", "worst": "e", "second worst": "d"}),
    ],
)
def test_overlay_cases(overlaps, expected):
    cases = {
        case: {"liver": score(box((0, 4)), box((0, slices))), "tumour": score(box(), box())}
        for case, slices in overlaps.items()
    }
    assert overlay_cases(summarize(cases)) == expected


def picture_of(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3]


def centre_of(picture: np.ndarray, color: tuple[float, float, float]) -> tuple[float, float]:
    """Row and column of the middle of the pixels in ``color``, as parts of the picture's height and width."""
    rows, columns = np.nonzero((abs(picture - color) < 0.02).all(-1))
    return rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]


@pytest.fixture
def panels(monkeypatch):
    """What was drawn: (reference plane, size in mm) of each view."""
    drawn = []
    draw_view = overlays._draw_view

    def recorded(ax, image, planes, size_mm, window):
        bounds = ax.get_window_extent()
        drawn.append((planes[0], tuple(size_mm), bounds.height / bounds.width))
        return draw_view(ax, image, planes, size_mm, window)

    monkeypatch.setattr(overlays, "_draw_view", recorded)
    return drawn


def test_overlay_shows_the_patient_from_the_front_at_true_size(panels):
    # One voxel at the head, the front and the patient's right, the last index of each axis.
    mask = box((3, 4), (5, 6), (8, 9))
    picture = draw_overlay(None, mask, box(), SPACING_MM, NAMES)
    assert picture.startswith(PNG)
    sizes = [size_mm for _, size_mm, _ in panels]
    assert sizes == [(6.0, 4.5), (20.0, 4.5), (20.0, 6.0)]  # y x, z x, z y in mm: 4 * 5, 6 * 1, 9 * 0.5
    for plane, (height, width), ratio in panels:
        assert np.argwhere(plane).tolist() == [[0, 0]]  # front or head on top; right or front at the left
        assert ratio == pytest.approx(height / width, rel=1e-6)


def test_overlay_paints_labels_where_they_are(panels):
    mask = box((0, 1), (0, 25), (0, 30), shape=(1, 50, 60))  # back and left, so at the lower right
    picture = picture_of(draw_overlay(np.zeros(mask.shape), mask, mask, (5, 1, 1), NAMES))
    assert len(panels) == 1  # one slice, one view
    filled = 0.18 * np.array([0xD5, 0x5E, 0x00]) / 255  # the first label's colour over black
    row, column = centre_of(picture, tuple(filled))
    assert row > 0.5
    assert column > 0.5


def test_overlay_of_a_sagittal_image_has_one_view(panels):
    mask = box((1, 3), (2, 4), shape=(4, 6, 1))
    draw_overlay(mask, mask, mask, SPACING_MM, NAMES)
    assert [size_mm for _, size_mm, _ in panels] == [(20.0, 6.0)]


@pytest.mark.parametrize("name", ["_hidden", "$\\broken$", "x" * 200])
def test_overlay_takes_odd_names_many_labels_and_empty_masks(name):
    names = ["background", *(f"{name}{number}" for number in range(100))]
    many = np.arange(200, dtype=np.uint8).reshape(2, 10, 10) % 101
    assert draw_overlay(np.full(many.shape, np.nan), many, many[::-1], (1, 2, 3), names).startswith(PNG)
    assert draw_overlay(None, many * 0, many * 0, (1, 2, 3), names).startswith(PNG)


def test_importing_the_evaluation_does_not_load_matplotlib_or_jinja():
    loaded = "{'matplotlib', 'jinja2', 'torch'} & sys.modules.keys()"
    code = f"import sys, segfw.evaluation.evaluate_pairs, segfw.verbs.evaluate; sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_plots_have_the_colours_of_the_overlays():
    cases = {str(n): {"whole": score(box((0, 4)), box((0, n + 1)))} for n in range(4)}
    for index in (1, 2):
        picture = picture_of(draw_scores(summarize(cases), {"whole": index}))
        found = [(abs(picture - label_color(each)) < 0.02).all(-1).sum() for each in (1, 2)]
        assert found[index - 1] > 20
        assert found[2 - index] == 0


def test_a_region_is_plotted_in_the_colour_it_is_painted_in(tmp_path, monkeypatch):
    labels = LabelSet(
        names=NAMES,
        values=(0, 1, 2),
        regions=(Region(name="whole", values=(1, 2), painted=1), Region(name="core", values=(2,), painted=2)),
    )
    folder = {name: tmp_path / name for name in ("reference", "predicted")}
    for path in folder.values():
        path.mkdir()
        write_labels(path / "a.nii.gz", box((0, 2)), Geometry.of(SHAPE, np.diag([5.0, 1, 2, 1])))
    given = {}
    monkeypatch.setattr(result_files, "write_report", lambda path, **values: given.update(values))
    evaluate(*folder.values(), labels=labels, report=tmp_path / "r.html")
    assert given["colors"] == {"whole": 1, "core": 2}
    swapped = labels.model_copy(update={"regions": labels.regions[::-1]})
    evaluate(*folder.values(), labels=swapped, report=tmp_path / "r.html")
    assert given["colors"] == {"core": 2, "whole": 1}


def test_a_penalty_does_not_squeeze_the_distances_that_were_measured():
    near = SurfaceScore(2.0, 1.0, 0.9)
    far = SurfaceScore(500.0, 500.0, 0.0)
    found = [label_score(confusion(box((0, 2)), box((0, 1)), 2), 1, surface=near) for _ in range(5)]
    missed = label_score(confusion(box((0, 2)), box(), 2), 1, surface=far)
    scores = summarize({str(n): {"liver": each} for n, each in enumerate([*found, missed])})
    assert report._limits(scores, "hd95_mm") == (0.0, 1.05 * 2)
    assert report._limits(scores, "nsd") == (-0.01, 1.01)
    assert draw_scores(scores).startswith(PNG)


def test_slices_go_through_the_reference_and_never_through_air():
    reference = box((1, 3), (2, 4), (5, 8))
    reference[1, 3, 6] = 0  # so that slice 2 has most
    everywhere = box((0, 4), (0, 6), (0, 9))
    assert shown_slices(reference, everywhere) == (2, 2, 5)
    assert shown_slices(box(), box((3, 4), (4, 5), (7, 8))) == (3, 4, 7)
    assert shown_slices(box(), box()) == (2, 3, 4)  # the middle


def test_views_of_thick_slices_keep_their_proportions(panels):
    mask = box((1, 2), (20, 30), (20, 40), shape=(4, 60, 60))
    draw_overlay(None, mask, mask, (10.0, 1.0, 1.0), NAMES)
    sizes = [size_mm for _, size_mm, _ in panels]
    # 10 mm high slices, of which there are four: the coronal view is 40 mm high. 20 mm margin around 10 and 20 mm.
    assert sizes == [(50.0, 60.0), (40.0, 60.0), (40.0, 50.0)]
    for _, (height, width), ratio in panels:
        assert ratio == pytest.approx(height / width, rel=1e-6)


@pytest.mark.parametrize(
    "inside, expected",
    [
        (50, (-160, 240, "CT window: centre 40 HU, width 400 HU")),
        (-700, (-1350, 150, "CT window: centre -600 HU, width 1500 HU")),
        (600, (-500, 1300, "CT window: centre 400 HU, width 1800 HU")),
    ],
)
def test_ct_has_a_window_for_what_is_marked(inside, expected):
    mask = box((0, 2))
    image = np.where(mask, inside, -1000).astype(float)
    assert window_of(image, mask > 0, [image[0]]) == expected


def test_other_images_are_shown_by_percentiles():
    image = np.arange(101.0).reshape(1, 1, 101)
    found = window_of(image, image < 0, [image])
    assert found == (1, 99, "grey from 1 to 99 (percentiles 1 and 99 of what is shown)")


@pytest.mark.parametrize(
    "width, length, text", [(100, 20, "2 cm"), (16, 2, "2 mm"), (400, 100, "10 cm"), (3, 0.5, "0.5 mm")]
)
def test_the_scale_bar_is_a_round_length(width, length, text):
    assert scale_bar(width, BAR_SHARE) == length
    assert length_text(length, SCAN) == text
    assert length_text(100, PICTURE) == "100 px"


def test_a_number_stands_above_one_of_two_organs():
    mask = np.zeros((5, 20), bool)
    mask[1:4, 2:5] = True  # three columns
    mask[1:4, 12:16] = True  # four
    mask[3:, :] = True
    assert upper_edge(mask) == (1, 14.0)
    assert upper_edge(mask[:, :8]) == (1, 3.5)


def test_a_case_called_like_markup_stays_a_name(tmp_path):
    evil = "</script><script>alert(1)</script>"
    cases = {f"{evil}{number}": {"liver": score(box((0, 2)), box((0, 1)))} for number in range(LONG_ROWS)}
    write_report(tmp_path / "r.html", title=evil, scores=summarize(cases), overlays=[], curve=None, facts={})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "alert(1)" in page  # as text
    assert "<script>alert" not in page
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)[-1])
    assert data["columns"][0]["names"] == list(cases)


def test_cases_times_labels_are_whole_and_small():
    found = [score(box((0, 4)), box((0, n % 4), (0, 1 + n % 5), (0, 1 + n % 9))) for n in range(180)]
    found = [
        one.model_copy(update={"hd95_mm": 1.23, "assd_mm": 4.56, "nsd": 0.5, "reference_ml": 1234.5}) for one in found
    ]
    labels = [f"structure {number}" for number in range(100)]
    few = summarize({"a": dict.fromkeys(labels, found[7])})
    cases = {f"case_{n:03d}": {name: found[(n + k) % 180] for k, name in enumerate(labels)} for n in range(500)}
    content = case_table(few.model_copy(update={"cases": cases}), {})
    assert content.rows == 50_000
    assert len(content.json) < 4_000_000  # bytes, of 5 MB that the page may have with its pictures
    data = {column.title: column.as_data() for column in content.columns}
    assert data["Dice"]["values"][5] == round(1000 * found[5].dice)
    assert data["Reference volume"]["values"][-1] == 123450
    assert {len(column.get("at", column.get("values"))) for column in data.values()} == {50_000}


@pytest.mark.parametrize(
    "labels, cases, what",
    [
        (["liver"], 1, "Dice of liver: one case"),
        (["liver"], 7, "Dice of liver: mean over 7 cases"),
        (["liver", "tumour"], 1, "Dice: mean over 2 labels of one case"),
        (["liver", "tumour"], 7, "Dice: mean over 2 labels of their means over 7 cases"),
    ],
)
def test_the_headline_says_what_it_is(labels, cases, what):
    one = dict.fromkeys(labels, score(box((0, 2)), box((0, 1))))
    figure, found, sure = headline(summarize({str(number): one for number in range(cases)}))
    assert (figure, found) == ("0.667", what)
    expected = "95 % confidence interval 0.667 to 0.667" if cases > 4 else "no confidence interval: it takes 5 cases"
    assert sure == expected


def test_folds_are_told_with_their_mean():
    half, whole = (summarize({"a": {"liver": score(box((0, 2)), box((0, end)))}}) for end in (1, 2))
    assert folds_table({"2d": {"3": whole}}) == "2d: mean Dice 1.0000 (fold 3)\n"
    assert folds_table({"2d": {"0": half, "1": whole}}) == (
        "2d: mean Dice 0.8333 over 2 folds (fold 0 0.6667, fold 1 1.0000)\n"
    )
    empty = summarize({"a": {"liver": score(box(), box())}})
    assert folds_table({"2d": {"all": empty}}) == "2d: no validation cases\n"


def test_captions_say_only_what_is_drawn():
    def text(cases, missed):
        found = [score(box((0, 2)), box((0, 1)))] * (cases - missed) + [score(box((0, 2)), box())] * missed
        return plot_text(summarize({str(n): {"liver": one} for n, one in enumerate(found)}, measures=Measures()))

    assert text(3, 0) == "With fewer than 8 cases there are no boxes, only the cases themselves. A dot is a case."
    assert text(8, 0).startswith("Boxes show median and quartiles")
    assert "Crosses" not in text(8, 0)
    assert "Crosses at the right edge are missed or invented labels" in text(8, 1)


def test_the_report_shows_intervals_spreads_and_components(tmp_path):
    lesions = lesion_counts(box((0, 2)) > 0, box((0, 1)) > 0, 0.001, (0.1, 1.0), 0.0)
    counts = confusion(box((0, 2)), box((0, 1)), 2)
    cases = {str(n): {"liver": label_score(counts, 1, voxel_size=0.001, lesions=lesions)} for n in range(5)}
    scores = summarize(cases, measures=Measures(lesions=("liver",)))
    write_report(tmp_path / "r.html", title="t", scores=scores, overlays=[], curve=None, facts={})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<small>0.667 to 0.667</small>" in page
    assert "95 % confidence interval 0.667 to 0.667" in page
    # 108 voxels of 1 mm3 were found by a component of 54, which counts with them.
    assert [page.count(f'<td class="text">{size}</td>') for size in ("0 to 0.1 ml", "0.1 to 1 ml")] == [0, 1]
    assert "1 ml and more" not in page  # there are none
    assert page.count("<td>5</td><td>5</td>") == 2
    assert "Comparison" not in page
