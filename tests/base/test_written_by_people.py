"""Text and JSON that people wrote: in any encoding of an editor, and nothing in it that cannot be."""

from __future__ import annotations

import json

import pytest

from segfw.base.errors import UserError
from segfw.base.records import Record
from segfw.base.written_by_people import decode_text, parse_json, read_json, read_text

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


class Named(Record):
    name: str


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_the_same_in_every_encoding_that_an_editor_writes(tmp_path, encoding):
    path = tmp_path / "dataset.json"
    path.write_bytes('{"name": "Knöchel 病"}'.encode(encoding))
    assert read_json(path) == {"name": "Knöchel 病"}
    assert Named.load(path).name == "Knöchel 病"
    assert Named.parse(path.read_bytes(), path).name == "Knöchel 病"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_the_same_in_every_encoding_that_an_editor_writes(tmp_path, encoding):
    path = tmp_path / "groups.csv"
    path.write_bytes("case;Nähe\r\n".encode(encoding))
    assert read_text(path) == "case;Nähe\r\n"
    assert read_text(path, latin=True) == "case;Nähe\r\n"


def test_an_unknown_encoding_is_one_sentence_unless_nothing_can_come_of_it(tmp_path):
    path = tmp_path / "licence.txt"
    path.write_bytes("Lizenz © 2026 – frei".encode("cp1252"))
    with pytest.raises(UserError, match=r"licence\.txt: is not text in UTF-8 or UTF-16 .*; .* save it as UTF-8$"):
        read_text(path)
    assert read_text(path, latin=True) == "Lizenz © 2026 – frei"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 200_000, "nested without end"),
        ("[" * 102 + "]" * 102, "nested more than 100 times"),
        ('{"a": NaN}', "it holds nan, which is no number"),
        ("[-Infinity]", "it holds -inf"),
        ("[1e999]", "it holds inf"),
        (r'{"labels": {"a\ud800": 1}}', "is no character"),
        (r'["a\u0000b"]', r"'\\x00' is no character"),
        ('{"labels": {"a": 1, "a": 2}}', "names 'a' twice, with different values"),
        ("", "Expecting value"),
        ("1" * 5000, "Exceeds the limit"),
    ],
)
def test_what_no_json_of_ours_can_hold_is_refused_in_one_sentence(tmp_path, text, reason):
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_json(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: is not readable JSON (")
    assert said.endswith("); correct it or take it from the original")
    assert "\n" not in said
    assert pytest.raises(UserError, parse_json, text, path).match(reason)


def test_what_is_odd_but_means_one_thing_is_read():
    assert parse_json('{"a": 1, "a": 1}', "x") == {"a": 1}
    assert parse_json(json.dumps("[" * 300), "x") == "[" * 300
    assert parse_json(r'"\ud83e\udec0"', "x") == "\U0001fac0"
    assert parse_json("[" * 100 + "]" * 100, "x")
    assert str(parse_json("[NaN]", "x", finite=False)) == "[nan]"


def test_records_take_no_nul_and_no_half_character(tmp_path):
    for text in (r'{"name": "a\u0000b"}', r'{"name": "a\ud800"}', '{"name": ' + "[" * 200_000):
        with pytest.raises(UserError, match="here: "):
            Named.parse(text, "here")


def test_an_empty_text_is_text():
    assert decode_text(b"", "x") == ""
