"""Options in a file are read as they were written, by every record; what is wrong in it is told with file and key."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest

from segfw.base.durations import duration_s
from segfw.base.errors import UserError
from segfw.base.options import Options, add_options, option, option_text, setting, words_of
from segfw.base.settings_file import read_settings, settings_text, typed_words
from segfw.cli import VERBS, command_of
from segfw.training.settings import TrainOptions, TrainSettings


@dataclass(frozen=True, kw_only=True)
class BakeOptions(Options):
    loaves: int = option(2, "how many (default: {default}), 100 %% of them", ge=1)
    time_s: float | None = option(None, "in the oven", parse=duration_s, metavar="TIME")
    flour: Literal["rye", "wheat"] = option("rye", "of which grain")
    seeds: tuple[str, ...] = option((), "on top", choices=("poppy", "sesame"))
    salted: bool = option(True, "leave out the salt")
    fan: bool | None = option(None, "of the oven")
    fresh: bool = option(False, "which yeast", name="--yeast", words={"dry": False, "fresh": True})
    shelf: Path | None = option(None, "where it cools")
    crust_mm: float = setting(3.0, "thickness")


def test_every_option_stands_in_the_file_with_what_it_means():
    given = BakeOptions(loaves=3, time_s=5400.0, seeds=("poppy",), shelf=Path("/cellar"))
    assert settings_text((given,), "of a loaf") == (
        "# of a loaf\n"
        "# What is typed goes before what stands here. Delete a line, or put a # before it, for the default.\n\n"
        "# how many (default: 2), 100 % of them\nloaves = 3\n\n"
        '# in the oven\ntime = "1h30m"\n\n'
        '# of which grain\nflour = "rye"\n\n'
        '# on top\nseeds = ["poppy"]\n\n'
        "# leave out the salt\nsalted = true\n\n"
        '# of the oven\nfan = "auto"\n\n'
        '# which yeast\nyeast = "dry"\n\n'
        '# where it cools\nshelf = "/cellar"\n\n'
        "# thickness\ncrust-mm = 3.0\n"
    )


@pytest.mark.parametrize(
    "given",
    [
        BakeOptions(),
        BakeOptions(loaves=7, time_s=0.25, flour="wheat", seeds=("sesame", "poppy"), salted=False, fan=True),
        BakeOptions(fan=False, fresh=True, crust_mm=1e-12, time_s=86399.5),
        BakeOptions(shelf=Path('/a "b"\\c/Müller\x7f\n/病')),
    ],
)
def test_what_is_written_is_read(given, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(settings_text((given,), "x"), encoding="utf-8")
    again = BakeOptions(**read_settings(path, (BakeOptions,)))
    if given.shelf is None:
        assert again == given
    else:  # what no terminal and no TOML may hold is escaped
        assert str(again.shelf) == '/a "b"\\c/Müller\\x7f\n/病'


# A value that is not the default, for each field by its name or else by its kind.
VALUES = {
    "configurations": ("2d", "3d_fullres"),
    "device": "cuda:1",
    "groups": r"(pat\d+)_",
    "gpu_memory_gb": "auto",
    "spacing_mm": (3.0, 0.5, 0.25),
    "log": ("mlflow",),
    "save_probabilities": 16,
    "extend_epochs": 7,
    "time_budget_s": 3661.5,
    "training_precision": "bf16",
    "patch_size": (8, 24, 40),
    "patches": "grow",
    "names": "totalsegmentator",
    "meaning": "authorship",
    "permutations": 99,
    "host": "localhost",
    "reason": "image-bad",
    "extend_s": None,  # of the same option as extend_epochs
}
BY_KIND = {
    "int": 5,
    "float": 0.75,
    "str": "a text",
    "Path": Path("/a/b"),
    "tuple[str, ...]": ("a", "b"),
    "tuple[float, ...]": (0.5, 2.0),
    "tuple[Path, Path]": (Path("/a/measures.csv"), Path("/a/table.csv")),
}


def another_value(record, each):
    if each.name in VALUES:
        return VALUES[each.name]
    words = words_of(record, each)
    if words is not None:
        return next(value for value in words.values() if value != each.default)
    if isinstance(each.default, bool):
        return not each.default
    if each.type.startswith("Literal") or each.name in ("preset", "precision"):
        return next(value for value in get_args(get_type_hints(record)[each.name]) if value != each.default)
    return BY_KIND[each.type.split(" | ")[0]]


RECORDS = {record for verb in VERBS for record in command_of(verb).records.values()}


@pytest.mark.parametrize("record", sorted(RECORDS, key=lambda record: record.__name__), ids=lambda one: one.__name__)
def test_every_record_is_read_as_it_was_written(record, tmp_path):
    path = tmp_path / "a.toml"
    changed = {each.name: another_value(record, each) for each in fields(record)}
    for given in (record(), record(**changed)):
        path.write_text(settings_text((given,), "x"), encoding="utf-8")
        assert record(**flat(read_settings(path, (record,)))) == given
    keys = set(tomllib.loads(path.read_text(encoding="utf-8")))
    typed = {each.name for each in fields(record) if option_text(each).name is not None}
    assert len(keys) >= len(typed)


def flat(found):
    """What one option says of several fields, such as extend, as values of these."""
    flattened = {}
    for name, value in found.items():
        flattened.update(value if isinstance(value, dict) else {name: value})
    return flattened


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("loafs = 3", "there is no option 'loafs'; did you mean loaves?"),
        ("xyz = 3", "there is no option 'xyz'; each key is the name of an option without its --"),
        ("loaves = 0", "loaves is 0; give 1 or more"),
        ('loaves = "3"', "loaves is '3'; give a whole number, 1 or more"),
        ("loaves = 2.5", "loaves is 2.5; give a whole number, 1 or more"),
        ("time = 90", "time is 90: '90' is no duration; write for example 90s, 12m, 2h or 1h30m"),
        ('flour = "whet"', "flour is 'whet'; give 'rye' or 'wheat'"),
        ('seeds = ["popy"]', "seeds is 'popy'; give 'poppy' or 'sesame'; did you mean poppy?"),
        ('salted = "yes"', "salted is 'yes'; give True or False"),
        ('fan = "of"', "fan is 'of'; give 'auto', 'on' or 'off'; did you mean off?"),
        ("yeast = 3", "yeast is 3; give 'dry' or 'fresh'"),
        ("[loaves]\nfirst = 3", "loaves is {'first': 3}; give a whole number, 1 or more"),
        (
            "loaves 3",
            "is not readable TOML (Expected '=' after a key in a key/value pair (at line 1, column 8)); write",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(line, message, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(line)
    with pytest.raises(UserError) as wrong:
        read_settings(path, (BakeOptions,))
    assert str(wrong.value).startswith(f"{path}: {message}")


def test_a_switch_may_be_true_or_on(tmp_path):
    path = tmp_path / "a.toml"
    for text in ("fan = true", 'fan = "on"'):
        path.write_text(text)
        assert read_settings(path, (BakeOptions,)) == {"fan": True}


@pytest.mark.parametrize(
    "text",
    ["loaves = " + "[" * 4000, "loaves = " + "9" * 5000, "loaves" + ".a" * 5000 + " = 1", "loaves = 1\n" * 10_000],
    ids=["nested", "digits", "dotted", "long"],
)
def test_what_nobody_writes_is_refused_before_it_takes_memory(tmp_path, text):
    (tmp_path / "bake.toml").write_text(text)
    with pytest.raises(UserError, match="bake.toml: .*; write lines such as epochs = 100"):
        read_settings(tmp_path / "bake.toml", (BakeOptions,))


def test_options_that_are_not_at_their_defaults_are_typed_again():
    given = TrainSettings(time_budget_s=150.0, mirroring=False, elastic=True, precision="fp32", warm_up_share=0.05)
    told = ["--time-budget", "2m30s", "--precision", "fp32", "--elastic", "--mirroring", "off"]
    assert typed_words(given) == told
    assert typed_words(given, ("time_budget_s", "precision")) == ["--elastic", "--mirroring", "off"]
    assert typed_words(TrainSettings()) == []
    start = TrainOptions(init_from=Path("other work"), log=("mlflow", "wandb"), overwrite=True, device="cpu")
    parser = argparse.ArgumentParser()
    add_options(parser, TrainOptions)
    assert TrainOptions.from_arguments(parser.parse_args(typed_words(start))) == start
