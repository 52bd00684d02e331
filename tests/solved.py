"""The solutions of a chapter's exercises, as its page shows them."""

from __future__ import annotations

import re

import nbformat
from conftest import ROOT, require


def solutions(chapter: str) -> list[str]:
    """The code of every solution in a chapter, in order.

    Args:
        chapter: its file name without the ending.
    """
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    require(path.exists(), "the chapters come with the repository only")
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    return re.findall(r"Solution</summary>\n\n```python\n(.*?)```", text, re.DOTALL)
