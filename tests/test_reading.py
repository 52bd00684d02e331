"""JSON of ours is read, or an error says which file is not what it should be, why, and what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.files import UnreadableError, parse_json, read_json, read_lines, write_json

TEXT = '{"a": "é \u2028", "b": [1, 2.5, null]}'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


def read(tmp_path, content: bytes, **options):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    return read_json(path, "a record", remedy="make it anew", **options)


@pytest.mark.parametrize("content", [TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), b"\n " + TEXT.encode() + b"\r\n"])
def test_utf_8_is_read_with_or_without_a_mark(tmp_path, content):
    assert read(tmp_path, content) == json.loads(TEXT)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (bytes(4096), "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (TEXT.encode("utf-16"), "it is not in UTF-8"),
        (TEXT.encode("utf-16-le"), "it is not in UTF-8"),
        (TEXT.encode("utf-32"), "it is not in UTF-8"),
        (TEXT.encode("latin-1", "replace"), "it is not in UTF-8"),
        (TEXT.encode()[:-3], "no JSON, or cut off"),
        (TEXT.encode() * 2, "no JSON, or cut off"),
        (b"<html>", "no JSON, or cut off"),
        (b"[" * 100_000, "no JSON, or cut off"),
        (b"[1]", "expected an object, found a list"),
        (b"null", "expected an object, found a NoneType"),
    ],
)
def test_what_is_no_object_names_file_reason_and_remedy(tmp_path, content, why):
    with pytest.raises(UnreadableError, match=rf"x\.json: not a record: {why}.*; make it anew"):
        read(tmp_path, content)


def test_fields_and_their_types(tmp_path):
    assert read(tmp_path, b'{"a": 1, "b": {}}', fields={"a": (int, float), "b": dict})["a"] == 1
    with pytest.raises(UnreadableError, match=r"x\.json: not a record: c is missing; make it anew"):
        read(tmp_path, b'{"a": 1}', fields={"a": int, "c": str})
    with pytest.raises(UnreadableError, match=r"x\.json: not a record: a is \[1\]; make it anew"):
        read(tmp_path, b'{"a": [1]}', fields={"a": dict})


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.json"):
        read_json(tmp_path / "x.json", "a record")
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UnreadableError, match=r"x\.json: cannot be read \(Is a directory\); get it anew"):
        read_json(tmp_path / "x.json", "a record")


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_value_or_that_error(content):
    try:
        parse_json(content, "x")
    except UnreadableError as error:
        assert str(error).startswith("x: ")


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES))
def test_what_is_written_is_read(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "written.json"
    write_json(path, value)
    assert read_json(path, "x") == value


@given(st.lists(VALUES, max_size=5), st.data())
def test_of_lines_that_were_cut_off_the_whole_ones_are_left(tmp_path_factory, rows, data):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    content = b"".join(lines)
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    whole = path.read_bytes().count(b"\n")
    assert read_lines(path) == rows[:whole]
    assert path.read_bytes() == b"".join(lines[:whole])


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UnreadableError, match=r"x\.jsonl, line 2: no JSON, or cut off"):
        read_lines(tmp_path / "x.jsonl")
