"""Clicks on made-up masks by arms whose effect is known, balls and strokes counted by hand, and the tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.refine import refine_runs
from bench.refine.brushes import BRUSHES, Brush, ball_around
from bench.refine.click_sources import SOURCES, stroke_points
from bench.refine.clicked_item import Item, click_through
from bench.refine.command import ARMS, main
from bench.refine.command import SOURCES as NAMES
from bench.refine.kept_out import KeptCase
from bench.refine.network_arms import Blind, Clicked, WithoutClicks, proposed
from bench.refine.refine_results import ClickedItem, RefineResult
from bench.refine.refine_runs import Trained, clicked_items, generator
from bench.refine.refine_tables import gain, tables
from bench.result_lines import append_line, read_lines
from builders.refiner import ORGANS, bright, canonical_grid, refiner, volume
from builders.refiner import Planted as PlantedNetwork
from segfw.clicks.simulated_clicks import error_components
from segfw.images.geometry import Geometry

SHAPE = (7, 12, 20)
SPACING = (5.0, 2.0, 1.0)
STRUCTURE = 2
OTHER = 1


def item_of(wanted_zyx, **more):
    return Item(case="c", structure="s", value=STRUCTURE, wanted_zyx=wanted_zyx, spacing_mm=SPACING, **more)


def two_errors():
    """Wanted: 3 x 4 x 5 voxels. Given: none of them, and 2 x 2 x 2 of them elsewhere."""
    wanted = np.zeros(SHAPE, bool)
    wanted[1:4, 2:6, 3:8] = True
    given = np.zeros(SHAPE, np.uint8)
    given[4:6, 8:10, 12:14] = STRUCTURE
    return given, wanted


class Planted:
    """Stands in for a refiner: mends the whole error that a click lies in, and obeys."""

    def __init__(self, values_zyx, item):
        self.values_zyx = values_zyx.copy()
        self.item = item
        self.allowed = []

    def click(self, point, *, inside, may_overwrite):
        self.allowed.append(may_overwrite)
        given = self.values_zyx == STRUCTURE
        for error in error_components(given, self.item.wanted_zyx):
            if error.holds(point):
                self.values_zyx[error.box][error.mask_zyx] = STRUCTURE if inside else 0
        self.values_zyx[point] = STRUCTURE if inside else 0


class Deaf(Planted):
    """An arm that no click changes anything of."""

    def click(self, point, *, inside, may_overwrite):
        pass


class Painted(Planted):
    """An arm that does what a click says, to its voxel alone."""

    def click(self, point, *, inside, may_overwrite):
        self.values_zyx[point] = STRUCTURE if inside else 0


class Harmful(Planted):
    """An arm that obeys, and takes two right voxels away."""

    def click(self, point, *, inside, may_overwrite):
        self.values_zyx[point] = STRUCTURE if inside else 0
        places = np.argwhere((self.values_zyx == STRUCTURE) & self.item.wanted_zyx)
        for place in places[-2:]:
            self.values_zyx[tuple(place)] = 0


def click(arm, source="deepest", number=5):
    rng = generator(0, arm.item, source)
    return click_through(arm, arm.item, SOURCES[source], rng, number)


def test_clicks_go_on_until_everything_is_right():
    given, wanted = two_errors()
    found = click(Planted(given, item_of(wanted)))
    # The largest error first: 60 of 60 are found with 8 too many, 2 * 60 / 128; the second click takes these away.
    assert found.dice == (0.0, 0.9375, 1.0, 1.0, 1.0, 1.0)
    assert (len(found.seconds), found.obeyed, found.lowered, found.asked) == (2, 2, 0, 0)


def test_what_is_not_obeyed_is_counted():
    given, wanted = two_errors()
    found = click(Deaf(given, item_of(wanted)))
    assert found.dice == (0.0,) * 6
    assert (len(found.seconds), found.obeyed, found.lowered) == (5, 0, 0)


def test_clicks_that_lower_dice_are_counted():
    _, wanted = two_errors()
    given = np.where(wanted, STRUCTURE, 0).astype(np.uint8)
    given[1, 2, 3] = 0
    found = click(Harmful(given, item_of(wanted)), number=1)
    assert (found.obeyed, found.lowered) == (1, 1)
    assert found.dice[1] < found.dice[0]


def test_clicks_that_say_what_the_expert_does_not_are_counted_apart(monkeypatch):
    given, wanted = two_errors()
    given[2, 3:5, 4:6] = STRUCTURE  # 4 of 60, and 8 voxels elsewhere
    # A hit, that nothing lowers; then two misses, of which the first makes a right voxel wrong and the second changes
    # nothing, because the mask holds that mistake already.
    drawn = iter([((1, 2, 3), True), ((2, 3, 4), False), ((4, 8, 12), True)])
    monkeypatch.setitem(SOURCES, "deepest", lambda *_: next(drawn))
    found = click(Painted(given, item_of(wanted)), number=3)
    assert (found.lowered, found.missed, found.lowered_by_misses) == (1, 2, 1)
    assert found.dice[:4] == (0.11111, 0.13699, 0.11111, 0.11111)  # 8 / 72, 10 / 73, 8 / 72


def test_a_click_inside_another_structure_asks():
    given, wanted = two_errors()
    given[wanted] = OTHER
    arm = Planted(given, item_of(wanted))
    assert click(arm, number=2).asked == 1
    assert arm.allowed == [True, False]


def test_every_arm_gets_the_same_luck():
    given, wanted = two_errors()
    item = item_of(wanted)
    first, second = (SOURCES["people-like"](generator(3, item, "people-like"), given == 2, item) for _ in range(2))
    assert first == second


def test_clicks_where_the_mask_is_right_lie_there():
    given, wanted = two_errors()
    given[2, 3:5, 4:6] = STRUCTURE
    item = item_of(wanted)
    rng = np.random.default_rng(0)
    drawn = [SOURCES["right already"](rng, given == STRUCTURE, item) for _ in range(200)]
    assert {inside for _, inside in drawn} == {True, False}
    assert all((given[point] == STRUCTURE) == wanted[point] == inside for point, inside in drawn)


@pytest.mark.parametrize(
    ("radius_mm", "voxels"),
    [
        (0.0, 1),
        (1.0, 3),  # its neighbours along x
        (2.0, 7),  # two of them on either side, and the nearest along y
        # Along y at 0, 2, 4 mm there is room for 5, 4.58 and 3 mm along x; across slices for the nearest two.
        (5.0, 11 + 2 * 9 + 2 * 7 + 2),
    ],
)
def test_balls_are_round_in_millimetres(radius_mm, voxels):
    item = item_of(np.zeros(SHAPE, bool))
    box, ball = ball_around((3, 6, 10), radius_mm, item)
    assert np.count_nonzero(ball) == voxels
    whole = np.zeros(SHAPE, bool)
    whole[box] = ball
    assert whole[3, 6, 10]


def test_balls_end_at_the_image():
    box, ball = ball_around((0, 0, 0), 2.0, item_of(np.zeros(SHAPE, bool)))
    assert np.count_nonzero(ball) == 4  # itself, two along x and one along y
    assert box == np.s_[0:1, 0:2, 0:3]


def test_brushes_spare_other_structures_unless_told():
    given, wanted = two_errors()
    given[2, 3, 6] = OTHER
    item = item_of(wanted)
    fits = Brush(given, item, BRUSHES["fitting brush"])
    fits.click((2, 3, 5), inside=True, may_overwrite=False)
    assert fits.values_zyx[2, 3, 6] == OTHER
    assert fits.values_zyx[2, 3, 5] == STRUCTURE
    told = Brush(given, item, BRUSHES["brush"])
    told.click((2, 3, 6), inside=True, may_overwrite=True)
    assert told.values_zyx[2, 3, 6] == STRUCTURE
    assert given[2, 3, 5] == 0  # the automatic mask is the caller's


def test_a_brush_of_the_errors_size_is_as_large_as_the_error():
    given, wanted = two_errors()
    brush = Brush(given, item_of(wanted), BRUSHES["brush"])
    brush.click((2, 4, 5), inside=True, may_overwrite=False)
    painted_mm3 = np.count_nonzero(brush.values_zyx == STRUCTURE) * 10 - 80
    assert painted_mm3 == pytest.approx(600, rel=0.2)
    brush.click((4, 8, 12), inside=False, may_overwrite=False)
    assert brush.values_zyx[4, 8, 12] == 0


def test_the_control_does_all_that_is_proposed_but_spares_others():
    part = np.array([[[0, 0, OTHER, STRUCTURE, STRUCTURE, OTHER]]])
    wanted = np.array([[[1, 1, 1, 0, 0, 0]]], bool)
    is_news = np.array([[[1, 0, 1, 1, 0, 1]]], bool)
    spared = proposed(part, wanted, is_news, STRUCTURE, may_overwrite=False)
    assert spared.tolist() == [[[STRUCTURE, 0, OTHER, 0, STRUCTURE, OTHER]]]
    told = proposed(part, wanted, is_news, STRUCTURE, may_overwrite=True)
    assert told.tolist() == [[[STRUCTURE, 0, STRUCTURE, 0, STRUCTURE, OTHER]]]


def test_the_control_is_shown_no_click():
    shown = []

    class Networks:
        patch_size = (2, 3, 4)

        def odds(self, image, start, channels):
            shown.append(channels)
            return channels[0]

    channels = np.ones((4, 2, 3, 4), np.float32)
    Blind(Networks()).odds(None, (0, 0, 0), channels)
    assert [float(channel.max()) for channel in shown[0]] == [1, 1, 0, 0]
    assert channels.all()


def test_strokes_become_points_eight_voxels_apart():
    scribbles = np.full((3, 40, 60), 4, np.uint8)
    scribbles[1, 10:13, 5:45] = STRUCTURE  # 3 x 40 voxels: a line of about 38, with room for 5 points
    scribbles[2, 30, 10:20] = 0  # 10 voxels of background: two points
    points = stroke_points(scribbles, STRUCTURE, SPACING)
    inside = [point for point, is_inside in points if is_inside]
    assert len(inside) == 5
    assert {z for z, _, _ in inside} == {1}
    assert all(scribbles[point] == STRUCTURE for point in inside)
    assert sorted(np.diff(sorted(x for _, _, x in inside)))[0] >= 8
    assert [point for point, is_inside in points if not is_inside] == [(2, 30, 10), (2, 30, 18)]
    outside = stroke_points(scribbles, OTHER, SPACING)
    assert len(outside) == 7
    assert not any(is_inside for _, is_inside in outside)


def test_points_of_strokes_are_clicked_where_the_mask_contradicts_them():
    given, wanted = two_errors()
    points = (((1, 2, 3), True), ((5, 9, 13), False), ((0, 0, 0), False))
    item = item_of(wanted, stroke_points=points)
    rng = np.random.default_rng(0)
    drawn = {SOURCES["scribbles"](rng, given == STRUCTURE, item) for _ in range(50)}
    assert drawn == set(points[:2])
    assert SOURCES["scribbles"](rng, wanted, item) is None


def line(arm, gains, *, seed=0, untouched=True, clicks="deepest"):
    """Eight patients; the automatic Dice is 0.1, 0.2 ... 0.8, and every click adds to it."""
    items = []
    for number in range(8):
        start = (number + 1) / 10
        dice = tuple(round(start + added, 5) for added in (0.0, *gains))
        items.append(
            ClickedItem(
                case=f"c{number}",
                structure="s",
                dice=dice,
                lowered=1 if number == 0 else 0,
                obeyed=5,
                asked=0,
                seconds=(0.1, 0.1, 0.1, 0.1, 2.1),
            )
        )
    return RefineResult(
        data_set="hippocampus",
        seed=seed,
        arm=arm,
        clicks=clicks,
        minutes=2.0,
        steps=10,
        base_minutes_per_fold=3.0,
        processor="p",
        cores=1,
        version="v",
        patient_of={f"c{number}": f"p{number}" for number in range(8)},
        untouched=untouched,
        items=tuple(items),
    )


def cells_of(text, start):
    return [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith(f"| {start} |")]


def test_tables_by_hand():
    lines = [line("refiner", (0.05, 0.06, 0.07, 0.08, 0.09)), line("no click", (0.04, 0.04, 0.04, 0.04, 0.04))]
    row, over_automatic, gains = cells_of(tables(lines), "refiner")
    assert row[1:6] == ["1", "0.4500", "0.5000", "0.5200", "0.5400"]
    assert row[6:10] == ["0.1500", "0.2000", "0.2200", "0.2400"]  # of 0.1 and 0.2, the worst two of eight
    assert row[10:] == ["2.5 % of 40", "0.0 % of 40", "-", "100.0 % of 40", "0.0 % of 40", "0.10, 2.10"]
    assert over_automatic[1:4] == [f"+0.0{gained}00 (+0.0{gained}00 to +0.0{gained}00)" for gained in (5, 7, 9)]
    assert gains[1] == "+0.0100 (+0.0100 to +0.0100)"
    assert gains[3] == "+0.0500 (+0.0500 to +0.0500)"
    assert gains[4] == "+0.0100, 2 patients"  # too few for an interval
    assert "bit for bit" in tables(lines)


def test_clicks_that_clearly_lower_dice_are_counted_apart():
    found = tables([line("refiner", (0.05, 0.046, 0.04, 0.05, 0.05))])  # by 0.004, then by 0.006, in each of 8 cases
    assert cells_of(found, "refiner")[0][11] == "20.0 % of 40"


def test_what_misses_cost_is_told_where_every_line_counts_it():
    counted = line("refiner", (0.0,) * 5)
    items = tuple(item.model_copy(update={"missed": 2, "lowered_by_misses": 1}) for item in counted.items)
    counted = counted.model_copy(update={"items": items})
    assert cells_of(tables([counted]), "refiner")[0][12] == "20.0 % of 40"
    assert cells_of(tables([counted, line("refiner", (0.0,) * 5, seed=1)]), "refiner")[0][12] == "-"


def test_gains_are_means_over_seeds():
    runs = {0: line("refiner", (0.05,) * 5), 1: line("refiner", (0.11,) * 5, seed=1)}
    control = {0: line("no click", (0.01,) * 5), 1: line("no click", (0.03,) * 5, seed=1)}
    assert gain(runs, control, 3, "all").mean == pytest.approx(0.06)


def test_a_mask_that_changed_without_a_click_is_told():
    assert "in 1 runs one had changed" in tables([line("refiner", (0.0,) * 5, untouched=False)])


def test_lines_are_kept_and_the_newest_of_a_key_counts(tmp_path):
    path = tmp_path / "r" / "refine.jsonl"
    assert read_lines(RefineResult, path) == []
    append_line(path, line("refiner", (0.1,) * 5))
    append_line(path, line("refiner", (0.2,) * 5))
    append_line(path, line("brush", (0.2,) * 5))
    assert read_lines(RefineResult, path) == [line("refiner", (0.2,) * 5), line("brush", (0.2,) * 5)]


def test_the_command_names_every_arm_and_source():
    assert set(NAMES) == set(SOURCES)
    assert set(ARMS) == {"refiner", "no click", *BRUSHES}


def opened_arms(image_zyx, values_zyx, item):
    """The refiner and the control, with a network that finds the structure wherever the image is bright."""
    geometry = canonical_grid(SHAPE, SPACING)
    kept = KeptCase(id="c", images=(), geometry=geometry, automatic=Path("c"), automatic_zyx=values_zyx, items=(item,))
    found = []
    for arm in (Clicked, WithoutClicks):
        planted = refiner(PlantedNetwork(bright), labels=ORGANS, spacing_mm=SPACING)
        planted._networks = Blind(planted._networks) if arm is WithoutClicks else planted._networks
        opened = planted.open(volume(image_zyx.astype(np.float32), geometry), volume(values_zyx, geometry))
        found.append(arm(opened, kept, item))
    return found


def test_the_refiner_keeps_to_what_is_connected_with_a_click_and_the_control_does_not():
    _, wanted = two_errors()
    image = wanted.copy()
    image[5, 9:11, 14:17] = True  # 6 voxels elsewhere, which no click is on
    item = Item(case="c", structure="left kidney", value=STRUCTURE, wanted_zyx=wanted, spacing_mm=SPACING)
    with_click, without = opened_arms(image, np.zeros(SHAPE, np.uint8), item)
    for arm in (with_click, without):
        arm.click((2, 3, 5), inside=True, may_overwrite=False)
    assert np.array_equal(with_click.values_zyx == STRUCTURE, wanted)
    assert np.array_equal(without.values_zyx == STRUCTURE, image)


def test_the_refiner_obeys_and_the_control_need_not():
    _, wanted = two_errors()
    dark = np.zeros(SHAPE)
    item = Item(case="c", structure="left kidney", value=STRUCTURE, wanted_zyx=wanted, spacing_mm=SPACING)
    with_click, without = opened_arms(dark, np.zeros(SHAPE, np.uint8), item)
    assert click_through(with_click, item, SOURCES["deepest"], np.random.default_rng(0), 1).obeyed == 1
    assert click_through(without, item, SOURCES["deepest"], np.random.default_rng(0), 1).obeyed == 0


@pytest.fixture
def kept():
    """Two cases that were kept out, of two structures and of one."""
    given, wanted = two_errors()
    geometry = Geometry.of(SHAPE, np.diag([*SPACING, 1.0]))
    second = Item(case="d", structure="o", value=OTHER, wanted_zyx=np.roll(wanted, 8, 2), spacing_mm=SPACING)
    items = {"c": (item_of(wanted), replace(second, case="c")), "d": (second,)}
    return [
        KeptCase(id=name, images=(), geometry=geometry, automatic=Path(name), automatic_zyx=given, items=items[name])
        for name in ("c", "d")
    ]


def mended(case, item):
    return Planted(case.automatic_zyx, item)


def touched(case, item):
    arm = Planted(case.automatic_zyx, item)
    arm.values_zyx[0, 0, 0] = STRUCTURE
    return arm


def test_every_structure_of_every_case_is_clicked_on_from_the_automatic_mask_on(kept):
    items, untouched = clicked_items(mended, kept, "deepest", 0, "title")
    assert [(item.case, item.structure) for item in items] == [("c", "s"), ("c", "o"), ("d", "o")]
    assert untouched
    assert not clicked_items(touched, kept, "deepest", 0, "title")[1]


def test_what_is_finished_is_not_done_again(kept, tmp_path, monkeypatch, capsys):
    done = []

    def arms(refiner):
        done.append(refiner)
        return {"refiner": mended, "no click": touched}

    monkeypatch.setattr(refine_runs, "make_refiner", lambda work, name, minutes, seed: work / "refiner")
    monkeypatch.setattr(refine_runs, "trained_of", lambda refiner: Trained(steps=7, base_minutes=3.0))
    monkeypatch.setattr(refine_runs, "kept_cases", lambda data, work, name, number: (kept, {"c": "p", "d": "q"}))
    monkeypatch.setattr(refine_runs, "network_arms", arms)
    asked = ["run", "hippocampus", "--minutes", "2", "--seed", "1", "--work", str(tmp_path)]
    asked += ["--results", str(tmp_path / "r.jsonl")]
    main([*asked, "--arms", "refiner", "--clicks", "deepest"])
    (line,) = read_lines(RefineResult, tmp_path / "r.jsonl")
    assert (line.key, line.steps, line.patient_of) == (
        ("hippocampus", 1, "refiner", "deepest", 2.0),
        7,
        {"c": "p", "d": "q"},
    )
    main(asked)
    assert capsys.readouterr().out.count("finished before") == 1
    found = [(each.arm, each.clicks) for each in read_lines(RefineResult, tmp_path / "r.jsonl")]
    # Nobody drew strokes here, and where the mask is right only the refiner is asked.
    assert found == [(arm, clicks) for clicks in ("deepest", "people-like") for arm in ARMS] + [
        ("refiner", "right already")
    ]
    assert not next(each for each in read_lines(RefineResult, tmp_path / "r.jsonl") if each.arm == "no click").untouched
    main(["table", "--results", str(tmp_path / "r.jsonl")])
    assert "### hippocampus: 2 kept-out patients" in capsys.readouterr().out
