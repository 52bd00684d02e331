"""The box that opens a chapter: its sentences are true of the records, and it is not shown where nothing is known."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from routedk_lite.book import found
from routedk_lite.book.notebook import Chapter
from routedk_lite.config import get_profile


def opening(path: Path) -> str:
    """The code that follows the set-up cell, if it makes a box."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return cells[1].source if "what_we_found(" in cells[1].source else ""


BOXES = {path.stem: code for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if (code := opening(path))}


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Run a chapter's opening as a reader without the public sessions does; gives the boxes that it makes."""

    def run(name: str, results: Path) -> list[str]:
        boxes = []

        def keep(*said, **options):
            boxes.append(make(*said, **options).data)

        monkeypatch.setattr(found, "what_we_found", keep)
        chapter = Chapter(get_profile("toy"), "cpu", results, tmp_path, has_public_data=False)
        exec(compile(BOXES[name], name, "exec"), {"chapter": chapter, "display": lambda box: None})
        return boxes

    make = found.what_we_found
    monkeypatch.setenv(found.STRICT, "yes")
    return run


@pytest.mark.parametrize("name", BOXES)
def test_what_a_chapter_opens_with_is_true_of_the_records(name, shown) -> None:
    (box,) = shown(name, ROOT / "results")
    assert 1 <= box.count("\n- ") <= 4 and "nan" not in box


@pytest.mark.parametrize("name", BOXES)
def test_without_records_and_sessions_no_box_is_shown(name, shown, tmp_path) -> None:
    assert shown(name, tmp_path / "none") == []


def test_boxes_were_found_at_all() -> None:
    assert len(BOXES) >= 5
