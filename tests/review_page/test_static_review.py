"""The page that needs no server: what is in it, and decisions noted in a real browser from the file itself."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from builders.drafts_folder import drawn_mask, make_drafts
from segfw.base.errors import UserError
from segfw.cli import main
from segfw.review_page.static_review import static_case, write_static_review
from segfw.review_page.static_texts import CHINESE, ENGLISH
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore
from segfw.verbs.queue import queue

PLACED = re.compile(r"\{\w+\}")


def data_of(path):
    """What the page's script works with."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def test_the_page_has_the_least_trusted_cases_first_and_what_they_are_bound_to(tmp_path):
    folder = make_drafts(tmp_path)
    page = write_static_review(ReviewStore.open(folder), tmp_path / "review.html", most_cases=9)
    assert (page.cases, page.left_out, page.begun) == (2, 0, 0)
    cases = data_of(tmp_path / "review.html")["cases"]
    store = ReviewStore.open(folder)
    assert [each["case"] for each in cases] == ["case_2", "case_1"]
    assert cases[0]["sha256"] == store.sha256("case_2", 0)
    assert cases[0]["structures"] == ["tumour", "liver"]  # the least trusted first
    text = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert "the folds agree on only 0.71 of it" in text
    assert text.count("data:image/png") == 2
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing is loaded from elsewhere


def test_what_is_begun_already_and_what_is_too_much_is_left_out(tmp_path):
    folder = make_drafts(tmp_path, {f"case_{number}": drawn_mask() for number in range(4)})
    store = ReviewStore.open(folder)
    store.open_case("case_0", Person(user="Anna"))
    page = write_static_review(store, tmp_path / "review.html", most_cases=2)
    assert (page.cases, page.left_out, page.begun) == (2, 1, 1)
    assert [each["case"] for each in data_of(tmp_path / "review.html")["cases"]] == ["case_3", "case_2"]
    for case in ("case_1", "case_2", "case_3"):
        store.open_case(case, Person(user="Anna"))
    with pytest.raises(UserError, match="holds no draft"):
        write_static_review(store, tmp_path / "other.html", most_cases=2)
    assert not (tmp_path / "other.html").exists()


def test_a_picture_goes_through_the_slices_in_which_masks_differ_most(tmp_path):
    """The candidate of a region has its first slice alone, the mask has two: they differ in the second one."""
    folder = make_drafts(tmp_path)
    case = static_case(ReviewStore.open(folder), "case_1")
    (picture,) = case.pictures
    assert (picture.structure, picture.kind, picture.other) == ("liver", "doubt", "fold 0")
    assert picture.png.startswith(b"\x89PNG")
    hidden = static_case(ReviewStore.open(folder), "case_1", is_hidden=True)
    assert hidden.pictures[0].structure == ""
    assert not any(row.verdict or row.reasons or row.predicted_dice for row in hidden.structures)


def test_a_blind_queue_makes_a_blind_page(tmp_path):
    folder = make_drafts(tmp_path)
    queue(folder, blind=True)
    write_static_review(ReviewStore.open(folder), tmp_path / "review.html", most_cases=9)
    text = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert "the folds agree" not in text
    assert 'class="text verdict-look"' not in text


def test_a_case_without_its_image_says_so(tmp_path):
    folder = make_drafts(tmp_path, has_images=False, has_quality=False)
    write_static_review(ReviewStore.open(folder), tmp_path / "review.html", most_cases=9)
    assert (tmp_path / "review.html").read_text(encoding="utf-8").count('data-t="no-image"') == 2


def test_names_cannot_break_out_of_the_page(tmp_path):
    """A case called like an end of a script, as far as names of files may be."""
    name = "x_script_<img onerror=alert(1)>"
    folder = make_drafts(tmp_path, {name: drawn_mask()}, has_quality=False)
    write_static_review(ReviewStore.open(folder), tmp_path / "review.html", most_cases=9)
    text = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert data_of(tmp_path / "review.html")["cases"][0]["case"] == name
    assert "<img onerror" not in text


@pytest.mark.parametrize("name", ["review.txt", "notes.html"])
def test_no_other_file_is_written_over(tmp_path, name):
    folder = make_drafts(tmp_path)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=name):
        write_static_review(ReviewStore.open(folder), tmp_path / name, most_cases=9)
    assert (tmp_path / name).read_text() == "mine"


def test_both_languages_say_everything_with_the_same_places():
    assert ENGLISH.keys() == CHINESE.keys()
    for key in ENGLISH:
        assert sorted(PLACED.findall(ENGLISH[key])) == sorted(PLACED.findall(CHINESE[key])), key
        assert key == "language" or ENGLISH[key] != CHINESE[key], key


def test_the_command_writes_it(tmp_path, capsys):
    folder = make_drafts(tmp_path)
    assert main(["review", str(folder), "--static", str(tmp_path / "review.html"), "--cases", "1"]) == 0
    said = capsys.readouterr().out
    assert "with 1 case; 1 more are open" in said
    assert "accept" in said


def test_decisions_are_noted_by_keys_downloaded_and_taken(chromium, tmp_path):
    """From a file, in a browser that reaches nothing else; segfw accept takes what was downloaded."""
    folder = make_drafts(tmp_path, {f"case_{number}": drawn_mask() for number in range(3)})
    write_static_review(ReviewStore.open(folder), tmp_path / "review.html", most_cases=9, language="en")
    context = chromium.new_context(accept_downloads=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "review.html").as_uri())
    page.keyboard.press("j")
    page.keyboard.press("a")  # case_2
    page.keyboard.press("j")
    page.keyboard.press("r")  # case_1
    assert page.text_content("#progress") == "1 of 3 cases decided"
    page.click("#download")
    assert "Type your name" in page.text_content("#said")
    page.fill("#user", "Anna")
    page.click("#download")
    assert "choose a reason" in page.text_content("#said")
    rejection = page.locator("article.case").nth(1).locator(".rejection")
    rejection.locator("select").select_option("model-failed")
    rejection.locator("input").fill('the liver is "gone"')
    third = page.locator("article.case").nth(2)
    third.locator('[data-choice="accept"]').first.click()
    assert page.text_content("#progress") == "2 of 3 cases decided"
    third.locator('[data-choice="absent"]').last.click()
    assert page.text_content("#progress") == "3 of 3 cases decided"
    # It is kept when the page is loaded again
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    assert page.text_content("#progress") == "3 of 3 cases decided"
    page.click("#language")
    assert page.text_content("#progress") == "已决定 3 / 3 个病例"
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(tmp_path / "decisions.json")
    context.close()
    assert not wrong
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    noted = json.loads((tmp_path / "decisions.json").read_text(encoding="utf-8"))
    assert [(each["case"], each["structure"], each["decision"]) for each in noted] == [
        ("case_2", "tumour", "accept"),
        ("case_2", "liver", "accept"),
        ("case_1", None, "reject"),
        ("case_0", "tumour", "accept"),
        ("case_0", "liver", "absent"),
    ]
    assert main(["accept", str(folder), "--from", str(tmp_path / "decisions.json")]) == 0
    standings = ReviewStore.open(folder).standings()
    assert {case: each.state for case, each in standings.items()} == {
        "case_0": "REVIEWED",
        "case_1": "REJECTED",
        "case_2": "REVIEWED",
    }
    assert standings["case_1"].reject_text == 'the liver is "gone"'
    assert standings["case_2"].reviewed_by == "Anna"
    values = ReviewStore.open(folder).read("case_0").array
    assert np.unique(values).tolist() == [0, 2]


def drafts_page(chromium, tmp_path, width):
    """The static page of made-up drafts in a window of this width."""
    folder = make_drafts(tmp_path)
    write_static_review(ReviewStore.open(folder), tmp_path / "review.html", most_cases=9)
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto((tmp_path / "review.html").as_uri())
    return page


@pytest.mark.parametrize("width", [1400, 900, 500])
def test_nothing_is_wider_than_the_window(chromium, tmp_path, width):
    page = drafts_page(chromium, tmp_path, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.parametrize("width", [850, 600, 400])
def test_reasons_have_the_width_of_a_narrow_window(chromium, tmp_path, width):
    page = drafts_page(chromium, tmp_path, width)
    why = page.locator(".why").first.bounding_box()
    assert why["width"] > width - 80
    assert page.locator(".label").first.inner_text() == "Predicted Dice"  # as the head of the table is not there
    page.close()
