"""Tables for the terminal and for Markdown: a cell is text, whatever it looks like."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.files import own_file
from routedk_lite.report.tables import provenance, text_table
from routedk_lite.study.records import load_all

TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1).map(str.strip).filter(bool)


ODD = ["./[new]", "[red]x[/red]", "[/]", r"\\[a]", "[link=x]y", ":warning:", "[[1, 3], [2]]", "./新しい店"]


@pytest.mark.parametrize("text", ODD)
def test_nothing_in_a_cell_is_markup_or_cut_off(text):
    assert f" {text} " in text_table(["domain", "what"], [[text, "about"]])


@given(header=st.lists(TEXTS, min_size=2, max_size=2), cells=st.lists(TEXTS, min_size=2, max_size=2))
def test_every_cell_is_shown_as_it_is(header, cells):
    first, _, last = filter(str.strip, text_table(header, [cells], text_columns=2).splitlines())
    for line, texts in ((first, header), (last, cells)):
        assert re.fullmatch(r"\s*" + r"\s+".join(map(re.escape, texts)) + r"\s*", line)


def test_all_types_that_runs_computed_in_are_named():
    first, *_ = [r for r in load_all(own_file("results")) if r.profile == "qwen" and r.run == "base-seed0"]
    other = replace(first, student={**first.student, "dtype": "float64"}, created="2030-01-01T00:00:00+00:00")
    assert f"in {first.student['dtype']} or float64, " in provenance([first, other, first])
    assert f"in {first.student['dtype']}, " in provenance([first])
