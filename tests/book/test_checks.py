"""Questions in the chapters: one block of plain HTML each, with answers that say why, one of them right."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

BOX = '<div class="rdk-check">'
ANSWER = re.compile(r'<details name="([^"]+)"><summary>(.+?)</summary><p>(.+?)</p></details>')


def blocks(path: Path) -> list[str]:
    """The cells of a chapter that ask a question."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source.strip() for cell in cells if cell.cell_type == "markdown" and BOX in cell.source]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_questions_have_one_right_answer_and_say_why(path: Path) -> None:
    names = []
    for block in blocks(path):
        lines = block.splitlines()
        # A blank line would end the block, and Markdown would read what follows.
        assert lines[0].startswith(f"{BOX}<p><b>Check.</b> ") and lines[-1] == "</div>" and all(lines), block
        answers = [ANSWER.fullmatch(line) for line in lines[1:-1]]
        assert all(answers) and 2 <= len(answers) <= 4, block
        (name,) = {answer[1] for answer in answers}  # of one name, so that one is open at a time
        names.append(name)
        said = [re.match(r"(Yes|No)\b", answer[3])[0] for answer in answers]
        assert said.count("Yes") == 1, block
        reasons = [re.sub(r"<[^>]+>", "", answer[3]) for answer in answers]
        assert min(len(reason.split()) for reason in reasons) > 5, block
    assert len(set(names)) == len(names)
