"""Raw tables are read whole, or refused by file and row."""

from __future__ import annotations

import pytest

from routedk_lite.data import rawdata
from routedk_lite.data.sessions import DataError

TABLE = "session ID,item ID\n1,é\n2,b\n"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a table from the bytes that a test gives."""
    path = tmp_path / "session_item.csv"
    monkeypatch.setattr(rawdata, "public_file", lambda source, name: path)

    def table(content):
        path.write_bytes(content)
        rawdata.raw_table.cache_clear()
        return rawdata.raw_table("food", "session_item")

    yield table
    rawdata.raw_table.cache_clear()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_table_may_begin_with_a_mark_and_end_its_lines_as_it_likes(read, encoding, line_end):
    rows = read(TABLE.replace("\n", line_end).encode(encoding))
    assert rows == [{"session ID": "1", "item ID": "é"}, {"session ID": "2", "item ID": "b"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.encode("latin-1"), r"session_item\.csv: not a CSV table in UTF-8 \(.*0xe9.*\): remove it, and it is"),
        (TABLE.encode("utf-16"), r"session_item\.csv: not a CSV table in UTF-8"),
        (b'a,b\n"1"2,3\n', r"session_item\.csv: not a CSV table in UTF-8"),
        (b"", r"session_item\.csv: no rows: remove it"),
        (b"a,b\n", r"session_item\.csv: no rows"),
        (b"a,b\n1,2\n3\n", r"session_item\.csv: row 2 does not have one value for each of a, b"),
        (b"a,b\n1,2,3\n", r"session_item\.csv: row 1 does not have one value for each of a, b"),
    ],
)
def test_what_is_no_table_is_refused_by_file_and_row(read, content, message):
    with pytest.raises(DataError, match=message):
        read(content)


def test_only_public_domains_have_raw_tables():
    with pytest.raises(ValueError, match=r"no public file 'dataset/toyshop/session_item\.csv' of 'bundlerec'"):
        rawdata.raw_table("toyshop", "session_item")
