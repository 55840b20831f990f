"""The files of the page as files: words of both languages, what browsers forbid, the vendored viewer, the wheel."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from segfw.review_page.page_files import PAGE_FOLDER, page_files

ROOT = Path(__file__).resolve().parents[2]
VENDORED = PAGE_FOLDER / "niivue"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE_FOLDER.glob("*.js"))}
WORDS = {name: json.loads((PAGE_FOLDER / "text" / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "zh")}
# Modules that are tested without a page: none of them may reach for one.
WITHOUT_PAGE = (
    *("brush", "clock", "contours", "edit_summary", "gzip", "hole_filling", "keymap", "mask_editor", "nifti_file"),
    *("palette", "planes", "run_history", "slice_interpolation", "viewing_record", "windows"),
)
PACKED_WITH_NIIVUE = (
    *("NiiVue", "gl-matrix", "nifti-reader-js", "fflate", "zarrita", "numcodecs", "Blosc", "Zstandard", "LZ4"),
    *("@lukeed/uuid", "@ungap/structured-clone", "array-equal", "Roboto"),
)


# ---- words ----


def test_both_languages_say_the_same_things():
    assert set(WORDS["en"]) == set(WORDS["zh"])
    assert len(WORDS["en"]) > 300  # else this proves nothing


def test_both_languages_fill_in_the_same_values():
    for key, english in WORDS["en"].items():
        chinese = WORDS["zh"][key]
        assert set(re.findall(r"\{(\w+)\}", english)) == set(re.findall(r"\{(\w+)\}", chinese)), key
        assert english.strip(), key
        assert chinese.strip(), key


def used_keys() -> tuple[set[str], set[str]]:
    """Keys that scripts name in whole, and the beginnings of those that they put together."""
    whole = set()
    begun = set()
    for text in SCRIPTS.values():
        whole |= set(re.findall(r'\bt\("([^"]+)"', text))
        begun |= set(re.findall(r"\bt\(`([^$`]+)\$\{", text))
        begun |= {f"{name}." for name in re.findall(r'\bknown\("([a-z_]+)"', text)}
    return whole, begun


def test_every_word_that_is_asked_for_is_there_and_none_is_left_over():
    whole, begun = used_keys()
    assert len(whole) > 100  # else this proves nothing
    assert whole - set(WORDS["en"]) == set()
    assert {start for start in begun if not any(key.startswith(start) for key in WORDS["en"])} == set()
    # Titles of the panel on the right are handed on.
    handed_on = {key for key in WORDS["en"] if key.startswith("findings.")}
    unused = {key for key in WORDS["en"] if key not in whole and not key.startswith(tuple(begun))}
    assert unused - handed_on == set()


def test_every_action_has_words_and_help():
    ids = re.findall(r'\{ id: "([a-z_0-9]+)"', SCRIPTS["keymap.js"])
    assert len(ids) > 50  # else this proves nothing
    for name in ids:
        assert f"action.{name}" in WORDS["en"]
        assert f"action.{name}.help" in WORDS["en"]


# ---- what the browser must not need ----


def test_nothing_is_written_into_the_page_that_its_rules_forbid():
    page = (PAGE_FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|style=|\son\w+=|javascript:", page) == []
    assert re.findall(r"<script(?![^>]*src=)", page) == []
    for name, text in SCRIPTS.items():
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []
        ), name
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], name


def test_what_the_page_asks_for_is_there():
    files = page_files()
    page = (PAGE_FOLDER / "index.html").read_text(encoding="utf-8")
    asked = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    for text in SCRIPTS.values():
        asked |= {name.removeprefix("./") for name in re.findall(r'from "([^"]+)"', text)}
    assert len(asked) > 25  # else this proves nothing
    assert asked - set(files) == set()


def test_what_computes_knows_no_page():
    for name in WITHOUT_PAGE:
        text = re.sub(r"//.*|/\*[\s\S]*?\*/", "", SCRIPTS[f"{name}.js"])
        assert re.findall(r"\bdocument\b|\bwindow\.|\bfetch\(|localStorage", text) == [], name
        imported = {Path(found).stem for found in re.findall(r'from "([^"]+)"', text)}
        assert imported <= set(WITHOUT_PAGE), name


def test_colours_have_enough_contrast_in_light_and_dark():
    """Text against its ground, at least 4.5 to 1."""
    css = (PAGE_FOLDER / "review.css").read_text(encoding="utf-8")
    found = re.findall(r"\{([^{}]+--paper:[^}]+)\}", css)
    blocks = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in found]
    assert len(blocks) == 3  # light, dark by choice, dark by the system
    assert blocks[1] == blocks[2]
    for colours in blocks:
        for ink, ground in (
            *((ink, ground) for ink in ("ink", "soft", "accent", "warn") for ground in ("paper", "panel")),
            *((ink, "pressed") for ink in ("ink", "soft")),
            ("accent-ink", "accent"),
            ("warn", "warn-paper"),
            ("error", "warn-paper"),
        ):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground, colours)


def contrast(first: str, second: str) -> float:
    """Of two colours, as the web's rules have it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# ---- the vendored viewer, and the wheel ----


def test_the_viewer_is_the_file_that_was_published():
    origin = json.loads((VENDORED / "origin.json").read_text(encoding="utf-8"))
    assert hashlib.sha256((VENDORED / "niivue.js").read_bytes()).hexdigest() == origin["sha256"]
    assert f'version: "{origin["version"]}"' in (VENDORED / "niivue.js").read_text(encoding="utf-8")
    kind, _, digest = origin["integrity"].partition("-")
    assert kind == "sha512"
    assert len(base64.b64decode(digest)) == 64
    licences = (VENDORED / "LICENSES.txt").read_text(encoding="utf-8")
    assert [name for name in PACKED_WITH_NIIVUE if name not in licences] == []


def test_the_wheel_has_the_page(tmp_path):
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True, timeout=300
    )
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
    wanted = {f"segfw/review_page/page/{name}" for name in page_files()}
    assert len(wanted) > 30  # else this proves nothing
    assert wanted - names == set()
