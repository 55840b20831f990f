"""Options records: values checked at birth, options and keywords made of fields."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from segfw.base.durations import duration_s
from segfw.base.options import Options, add_options, option, setting, takes_options
from segfw.base.records import UserError


@dataclass(frozen=True, kw_only=True)
class BakeOptions(Options):
    loaves: int = option(2, "how many (default: {default})", ge=1)
    time_s: float | None = option(None, "in the oven", parse=duration_s, metavar="TIME")
    flour: Literal["rye", "wheat"] = option("rye")
    seeds: tuple[str, ...] = option((), "on top")
    salted: bool = option(True, "leave out the salt")
    fan: bool | None = option(None, "of the oven")
    fresh: bool = option(False, "which yeast", name="--yeast", words={"dry": False, "fresh": True})
    shelf: Path | None = option(None, "where it cools")
    crust_mm: float = setting(3.0, "thickness")


def typed(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser, BakeOptions)
    return BakeOptions.from_arguments(parser.parse_args(arguments))


def test_nothing_typed_is_the_default():
    assert typed() == BakeOptions()


def test_what_is_typed_becomes_values_of_the_fields_types():
    arguments = ["--loaves", "5", "--time", "1h30m", "--seeds", "poppy", "sesame", "--no-salted", "--fan", "off"]
    assert typed(*arguments, "--yeast", "fresh", "--shelf", "shelf") == BakeOptions(
        loaves=5,
        time_s=5400.0,
        seeds=("poppy", "sesame"),
        salted=False,
        fan=False,
        fresh=True,
        shelf=Path("shelf"),
    )


def test_settings_cannot_be_typed(capsys):
    with pytest.raises(SystemExit):
        typed("--crust-mm", "2")
    assert "unrecognized arguments: --crust-mm 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "values, message",
    [
        ({"loaves": 0}, "loaves is 0; give 1 or more"),
        ({"loaves": "2"}, "loaves is '2'; give a whole number, 1 or more"),
        ({"flour": "oats"}, "flour is 'oats'; give 'rye' or 'wheat'"),
        ({"time_s": "1h"}, "time_s is '1h'; give a number"),
        ({"salted": 3}, "salted is 3; give True or False"),
    ],
)
def test_a_wrong_value_is_refused_by_the_keyword(values, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        BakeOptions(**values)


def test_a_text_becomes_a_path_and_a_list_a_tuple():
    given = BakeOptions(shelf="cellar/left", seeds=["poppy"])
    assert given.shelf == Path("cellar/left")
    assert given.seeds == ("poppy",)


def test_names_may_be_one_text_or_numbers():
    assert BakeOptions(seeds="poppy").seeds == ("poppy",)
    assert BakeOptions(seeds=[0, "all"]).seeds == ("0", "all")
    with pytest.raises(UserError, match="seeds is .0.5,.; give texts"):
        BakeOptions(seeds=(0.5,))


def test_options_are_read_as_they_were_written(tmp_path):
    given = BakeOptions(loaves=7, seeds=("poppy",), shelf=Path("a/b"), time_s=2.5)
    given.save(tmp_path / "bake.json")
    assert BakeOptions.load(tmp_path / "bake.json") == given
    (tmp_path / "bake.json").write_text('{"loaves": 7, "rolls": 3}')
    with pytest.raises(UserError, match="bake.json: field 'rolls' is not known to this version"):
        BakeOptions.load(tmp_path / "bake.json")


@takes_options(options=BakeOptions)
def bake(oven, options: BakeOptions = BakeOptions(), *, guests=None):  # noqa: B008  # of the test alone
    return oven, options, guests


def test_a_function_takes_the_record_or_its_fields_as_keywords():
    wanted = BakeOptions(loaves=4)
    assert bake("old") == ("old", BakeOptions(), None)
    assert bake("old", wanted) == bake("old", options=wanted) == bake(oven="old", loaves=4) == ("old", wanted, None)
    assert bake("old", wanted, seeds=("poppy",), guests=3) == ("old", BakeOptions(loaves=4, seeds=("poppy",)), 3)
    assert bake("old", wanted, loaves=None) == ("old", BakeOptions(), None)


def test_what_is_no_record_in_its_place_is_told():
    with pytest.raises(TypeError, match=r"^bake\(\) takes BakeOptions as options, not int$"):
        bake("old", 4)


def test_an_unknown_keyword_is_told_with_the_nearest_known():
    with pytest.raises(TypeError, match=r"^bake\(\) takes no 'loafs'; did you mean loaves\?$"):
        bake("old", loafs=4)


def test_a_missing_argument_is_told():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'oven'"):
        bake(loaves=4)
