"""Clicks in files of three programs, and the maps that are made of them, on numbers that can be counted."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from segfw.base.records import UserError
from segfw.clicks.click import Click
from segfw.clicks.click_files import read_clicks, write_clicks
from segfw.clicks.click_maps import CHANNELS, click_map, refiner_channels
from segfw.dataset.labels import LabelSet
from segfw.images.geometry import Geometry

LABELS = LabelSet(names=("background", "liver", "left kidney", "right kidney"), values=(0, 1, 2, 5))
# z runs to the feet, y to the back, x to the left: 5, 2 and 3 mm.
GRID = Geometry.of((4, 6, 8), np.array([[0, 0, -3, 10], [0, -2, 0, 20], [-5, 0, 0, 30], [0, 0, 0, 1]], float))


def test_what_is_written_is_read_again(tmp_path):
    clicks = (
        Click(label="liver", ras_mm=(1.5, -2.0, 3.25)),
        Click(label="left kidney", ras_mm=(0.1, 0.2, 0.3), inside=False),
    )
    write_clicks(tmp_path / "clicks.json", clicks)
    assert read_clicks(tmp_path / "clicks.json", LABELS) == clicks


def test_names_are_looked_up_as_everywhere(tmp_path):
    said = [{"label": name, "ras_mm": [0, 0, 0]} for name in ("Liver", "\u809d\u810f", "kidney_left", "\u53f3\u80be")]
    (tmp_path / "clicks.json").write_text(json.dumps(said), encoding="utf-8")
    found = [click.label for click in read_clicks(tmp_path / "clicks.json", LABELS)]
    assert found == ["liver", "liver", "left kidney", "right kidney"]


def point_list(points, system="LPS", name="liver", units="mm", kind="Fiducial"):
    return {
        "type": kind,
        "name": name,
        "coordinateSystem": system,
        "coordinateUnits": units,
        "controlPoints": [
            {"label": label, "position": place, "positionStatus": status} for label, place, status in points
        ],
    }


def write_markups(path, *lists):
    path.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": list(lists)}), encoding="utf-8")
    return path


def test_point_lists_of_slicer_in_both_systems(tmp_path):
    points = [("F-1", [1.0, 2.0, 3.0], "defined"), ("-F-2", [4.0, -5.0, 6.0], "defined")]
    path = write_markups(
        tmp_path / "points.mrk.json",
        point_list(points),
        point_list(points[:1], system="RAS", name="right kidney"),
        point_list([("F", [1000.0, 0.0, 0.0], "defined")], name="-liver", units=["um", "UCUM", "micrometer"]),
        point_list(points, kind="Curve", name="midline"),
    )
    assert read_clicks(path, LABELS) == (
        Click(label="liver", ras_mm=(-1.0, -2.0, 3.0)),
        Click(label="liver", ras_mm=(-4.0, 5.0, 6.0), inside=False),
        Click(label="right kidney", ras_mm=(1.0, 2.0, 3.0)),
        Click(label="liver", ras_mm=(-1.0, 0.0, 0.0), inside=False),
    )


def test_points_that_are_not_set_are_no_clicks_and_a_list_without_a_name_is_called_like_the_file(tmp_path):
    unset = ("F-2", [0.0, 0.0, 0.0], "undefined")
    path = write_markups(
        tmp_path / "left kidney.mrk.json", point_list([("F-1", [1, 2, 3], "defined"), unset], name="", system="RAS")
    )
    assert read_clicks(path, LABELS) == (Click(label="left kidney", ras_mm=(1.0, 2.0, 3.0)),)


def test_points_of_napari_are_voxels_of_the_array(tmp_path):
    (tmp_path / "liver.csv").write_text("index,axis-0,axis-1,axis-2\n0.0,1.0,2.0,3.0\n1.0,0.5,0.0,0.0\n")
    found = read_clicks(tmp_path / "liver.csv", LABELS, GRID)
    assert [click.ras_mm for click in found] == [(10 - 9, 20 - 4, 30 - 5), (10, 20, 27.5)]
    assert {click.label for click in found} == {"liver"}


def test_a_layer_of_napari_may_hold_several_structures(tmp_path):
    (tmp_path / "Points.csv").write_text(
        "index,axis-0,axis-1,axis-2,label,inside\n0,0,0,0,liver,True\n1,0,0,0,-liver,\n2,0,0,0,left kidney,False\n"
    )
    found = read_clicks(tmp_path / "Points.csv", LABELS, GRID)
    assert [(click.label, click.inside) for click in found] == [
        ("liver", True),
        ("liver", False),
        ("left kidney", False),
    ]


def test_points_of_a_single_slice_have_two_axes(tmp_path):
    flat = Geometry.of((1, 6, 8), GRID.matrix)
    (tmp_path / "-liver.csv").write_text("index,axis-0,axis-1\n0,2,3\n")
    assert read_clicks(tmp_path / "-liver.csv", LABELS, flat) == (
        Click(label="liver", ras_mm=(1.0, 16.0, 30.0), inside=False),
    )


def with_position(position):
    """Of 3D Slicer, of one point on the liver."""
    points = f'[{{"position": {position}}}]'
    return f'{{"markups": [{{"type": "Fiducial", "name": "liver", "controlPoints": {points}}}]}}'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", "[]", "holds no click"),
        ("c.json", "{}", "no list of clicks"),
        (
            "c.json",
            '[{"label": "liver", "ras_mm": [1, 2]}]',
            "click 1: field 'ras_mm.* write each click as .*-4.5, 30.0",
        ),
        ("c.json", '[{"label": "liver", "ras_mm": [1, 2, 3], "outside": true}]', "click 1: .*outside"),
        ("c.json", '[{"label": "liver", "ras_mm": [1, 2, NaN]}]', "not readable JSON"),
        ("c.json", '[{"label": "spleen", "ras_mm": [1, 2, 3]}]', "'spleen'.*has no label here"),
        ("c.json", '[{"label": "kidney", "ras_mm": [1, 2, 3]}]', "'kidney' is left kidney and right kidney"),
        ("c.json", "no json", "not readable JSON"),
        ("c.txt", "", "is no file of clicks; give one of .json, .mrk.json or .csv"),
        ("c.json", '[{"label": "liver", "ras_mm": [1, 2, 1e999]}]', "not readable JSON"),
        ("c.json", '[{"label": "liver", "ras_mm": [1, 2, 1' + 400 * "0" + "]}]", "click 1: field 'ras_mm"),
        ("c.json", '[{"label": "liver", "ras_mm": [1, 2, true]}]', "click 1: field 'ras_mm"),
        ("c.mrk.json", "{}", "no field 'markups'"),
        ("c.mrk.json", with_position("[1, 2, NaN]"), "not readable JSON"),
        ("c.mrk.json", with_position("[1, 2, 1" + 400 * "0" + "]"), "point 1 of liver: field 'position' is"),
        ("c.mrk.json", with_position('[1, 2, "3"]'), "point 1 of liver: field 'position' is"),
        ("c.mrk.json", with_position("[1, 2, true]"), "point 1 of liver: field 'position' is"),
        ("liver.csv", "index,axis-0,axis-1,axis-2\n0,1,nan,2\n", "line 2: '1, nan, 2' is no point"),
        ("liver.csv", "index,axis-0,axis-1,axis-2\n0,1,inf,2\n", "line 2: '1, inf, 2' is no point"),
        ("c.mrk.json", '{"markups": [{"type": "Line"}]}', "holds no click"),
        ("c.mrk.json", '{"markups": [{"type": "Fiducial", "coordinateSystem": "IJK"}]}', "'IJK'; it is 'RAS' or 'LPS'"),
        ("c.mrk.json", '{"markups": [{"type": "Fiducial", "coordinateUnits": "m"}]}', "'coordinateUnits' is 'm'"),
        (
            "c.mrk.json",
            '{"markups": [{"type": "Fiducial", "name": "liver", "controlPoints": [{"position": [1, 2]}]}]}',
            "point 1 of liver: field 'position'",
        ),
        (
            "c.mrk.json",
            '{"markups": [{"type": "Fiducial", "name": "liver", "controlPoints": 5}]}',
            "field 'controlPoints' of liver is no list",
        ),
        (
            "c.mrk.json",
            '{"markups": [{"type": "Fiducial", "name": "liver", "controlPoints": {"a": 1}}]}',
            "field 'controlPoints' of liver is no list",
        ),
        ("liver.csv", "index,axis-0,axis-1\n0,1,2\n", "has 2 columns of axes"),
        ("liver.csv", "index,axis-0,axis-1,axis-2\n0,1,2,x\n", "line 2: '1, 2, x' is no point"),
        ("liver.csv", "index,axis-0,axis-1,axis-2\n0,1e308,1e308,1e308\n", "line 2: '1e308, 1e308, 1e308' is no point"),
        ("liver.csv", "index,axis-0,axis-1,axis-2\n", "holds no click"),
        ("liver.csv", "index,axis-0,axis-1,axis-2,inside\n0,1,2,3,maybe\n", "'maybe'; write true or false"),
    ],
)
def test_what_is_no_click_is_refused_with_its_file(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        read_clicks(path, LABELS, GRID)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file; give clicks as .json, .mrk.json or .csv"):
        read_clicks(tmp_path / "clicks.json", LABELS)


def test_a_click_falls_off_by_millimetres():
    # Finest spacing 1 mm, so sigma is 2 mm: a voxel along z is 2 sigma, two along x are 1 sigma.
    found = click_map((3, 5, 9), (4.0, 2.0, 1.0), [(1, 2, 4)])
    assert found.dtype == np.float32
    assert found[1, 2, 4] == 1
    assert found[0, 2, 4] == pytest.approx(math.exp(-2))
    assert found[1, 3, 4] == pytest.approx(math.exp(-0.5))
    assert found[1, 2, 6] == pytest.approx(math.exp(-0.5))


def test_a_map_is_the_nearest_click_and_ends_at_four_sigma():
    spacing_mm = (3.0, 1.0, 1.5)
    shape = (9, 30, 21)
    points = [(0.5, 2.0, 3.0), (8.0, 20.0, 19.5), (-1.0, 29.0, 0.0)]
    found = click_map(shape, spacing_mm, points)
    for voxel in np.ndindex(shape):
        best = 0.0
        for point in points:
            along_mm = [(a - b) * step for a, b, step in zip(voxel, point, spacing_mm)]
            if max(map(abs, along_mm)) <= 4 * 2.0:
                best = max(best, math.exp(-sum(d * d for d in along_mm) / 8))
        assert found[voxel] == pytest.approx(best, abs=1e-7)


def test_no_click_is_no_map_and_one_far_outside_reaches_nothing():
    assert not click_map((3, 4, 5), (1, 1, 1), []).any()
    assert not click_map((3, 4, 5), (1, 1, 1), [(-20, 2, 2), (1, 90, 2)]).any()


def test_the_channels_are_in_their_order():
    structure = np.zeros((3, 4, 5), bool)
    structure[0, 0, 0] = True
    others = np.zeros((3, 4, 5), bool)
    others[2, 3, 4] = True
    found = refiner_channels(structure, others, [(0, 0, 0)], [(2, 3, 4)], (1.0, 1.0, 1.0))
    assert found.shape == (len(CHANNELS), 3, 4, 5)
    assert found.dtype == np.float32
    assert (found[0] == structure).all()
    assert (found[1] == others).all()
    assert found[2, 0, 0, 0] == 1
    assert found[3, 2, 3, 4] == 1


def test_clicks_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import segfw.clicks.click, segfw.clicks.click_files, segfw.clicks.click_maps; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "fine", done.stderr
