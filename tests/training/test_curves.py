"""The picture and the page of a run."""

import os
import re
import time

import pytest

from segfw.training import progress_page as curves
from segfw.training.progress_page import PROGRESS_HTML, PROGRESS_PNG, draw_progress


def row(epoch: int, **more) -> dict:
    return {
        "epoch": epoch,
        "steps": 10,
        "train_loss": 0.5 - 0.1 * epoch,
        "val_loss": 0.6 - 0.1 * epoch,
        "learning_rate": 0.01 / (epoch + 1),
        "val_dice": 0.1 * epoch,
        "val_dice_per_label": [0.1 * epoch, None],
        "epoch_s": 2.0,
        "elapsed_s": 2.0 * (epoch + 1),
        "stalled_share": 0.25,
    } | more


NAMES = ["$\\broken$", "_<hidden>"]


@pytest.fixture
def panels(monkeypatch):
    """The axes of the figure that is drawn last, by title."""
    drawn = {}
    png_of = curves.png_of

    def recorded(figure):
        drawn.clear()
        drawn.update({ax.get_title(): ax for ax in figure.axes if ax.get_title()})
        return png_of(figure)

    monkeypatch.setattr(curves, "png_of", recorded)
    return drawn


def lines(ax) -> dict[str, tuple[list, list]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}


def test_every_figure_is_drawn_against_its_epoch(tmp_path, panels):
    rows = [
        row(0),
        row(1, whole_case_dice=0.5, whole_case_dice_per_label=[0.4, 0.6], augment_share=0.1),
        row(2, rescued="the loss became nan", val_loss=float("nan")),
    ]
    draw_progress(tmp_path, rows, NAMES)
    assert list(panels) == [
        "Loss",
        "Dice of validation patches",
        "Dice of whole validation cases",
        "Learning rate",
        "Seconds per epoch",
    ]
    assert lines(panels["Loss"])["training"] == ([1, 2, 3], [0.5, 0.4, 0.3])
    assert lines(panels["Loss"])["validation"] == ([1, 2], [0.6, 0.5])
    patch, whole, seconds = (lines(panels[title]) for title in list(panels)[1:3] + ["Seconds per epoch"])
    assert patch[" mean"] == patch[f" {NAMES[0]}"] == ([1, 2, 3], [0.0, 0.1, 0.2])
    assert whole[" mean"] == ([2], [0.5])
    assert whole[f" {NAMES[1]}"] == ([2], [0.6])
    assert seconds["waiting for data"] == ([1, 2, 3], [0.5, 0.5, 0.5])
    assert seconds["augmentation"] == ([2], [0.2])
    # A mark at the third epoch in every panel, and not at another.
    for ax in panels.values():
        assert [line.get_xdata() for line in ax.get_lines() if line.get_linestyle() == ":"] == [[3, 3]]
    assert (tmp_path / PROGRESS_PNG).read_bytes().startswith(b"\x89PNG")


def test_without_whole_cases_there_is_no_panel_for_them(tmp_path, panels):
    draw_progress(tmp_path, [row(0)], ["liver"])
    assert list(panels) == ["Loss", "Dice of validation patches", "Learning rate", "Seconds per epoch"]
    assert list(lines(panels["Dice of validation patches"])) == [" liver"]


def test_of_many_labels_only_the_first_are_named(tmp_path, panels):
    names = [f"l{index}" for index in range(40)]
    draw_progress(tmp_path, [row(0, val_dice_per_label=[0.5] * 40)], names)
    legend = panels["Dice of validation patches"].get_legend()
    assert len(legend.get_texts()) == curves.LEGEND_ENTRIES + 1
    assert legend.get_title().get_text() == "and 30 labels more"


def test_the_page_renews_itself_until_the_run_is_finished(tmp_path):
    rows = [row(0), row(1, rescued="<b> was lost")]
    draw_progress(tmp_path, rows, NAMES, left_s=3723)
    page = (tmp_path / PROGRESS_HTML).read_text(encoding="utf-8")
    assert "location.reload()" in page
    assert "Finished" not in page
    assert "1:02:03" in page
    assert "Epoch 2, rescued: &lt;b&gt; was lost" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # one file that needs no other
    draw_progress(tmp_path, rows, NAMES, left_s=0, is_last=True)
    page = (tmp_path / PROGRESS_HTML).read_text(encoding="utf-8")
    assert "location.reload()" not in page
    assert "Finished" in page


def test_the_score_of_whole_cases_is_the_headline_where_there_is_one(tmp_path):
    draw_progress(tmp_path, [row(0, whole_case_dice=0.7654), row(1)], NAMES)
    page = (tmp_path / PROGRESS_HTML).read_text(encoding="utf-8")
    assert "<b>0.765</b><span>mean Dice of whole cases, epoch 1</span>" in page


def test_it_is_drawn_again_only_after_a_while_or_at_the_end(tmp_path):
    picture = tmp_path / PROGRESS_PNG
    draw_progress(tmp_path, [row(0)], NAMES)
    first = picture.read_bytes()
    draw_progress(tmp_path, [row(0), row(1)], NAMES)
    assert picture.read_bytes() == first
    draw_progress(tmp_path, [row(0), row(1)], NAMES, is_last=True)
    second = picture.read_bytes()
    assert second != first
    for age_s in (curves.DRAWN_EVERY_S + 1, -3600):  # old, or of a clock that was set back
        picture.write_bytes(b"old")
        os.utime(picture, (time.time() - age_s,) * 2)
        draw_progress(tmp_path, [row(0), row(1)], NAMES)
        assert picture.read_bytes() == second


def test_a_disk_that_is_full_is_said_once_and_stops_nothing(tmp_path, monkeypatch, capsys):
    def full(path, *rest, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curves, "write_page", full)
    curves._say_once.cache_clear()
    for _ in range(3):
        draw_progress(tmp_path, [row(0)], NAMES)
    assert capsys.readouterr().out.count("No space left on device") == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_drawn_before_the_first_epoch(tmp_path):
    draw_progress(tmp_path, [], NAMES, is_last=True)
    assert not list(tmp_path.iterdir())
