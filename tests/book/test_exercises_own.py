"""Chapter 11: its solutions run after its cells, in a small size."""

from __future__ import annotations

from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from conftest import ROOT, require
from solved import solutions

CHAPTER = "11_your_own"
CELLS = (  # how those begin that the solutions need
    "import random",
    "import torch\nfrom peft",
    "from routedk_lite import Dynamic",
    "import numpy as np\nfrom routedk_lite import Average",
    "from routedk_lite.analysis.controls",
    "def with_alpha",
)
ANSWERS = ("scores = {", "control = {")
"""Where a cell begins to ask hundreds of questions."""
SMALLER = {
    "steps=80": "steps=4",
    "not in learned][:40]": "not in learned][:3]",
    "learned[:60]": "learned[:4]",
    "learned[60:80]": "learned[60:62]",
    "(2, 15, 60)": "(1, 2)",
    "epochs=12 * 60 // n": "epochs=2 // n",
    "epochs=12,": "epochs=1,",
}


def small(code: str) -> str:
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    return code


@pytest.mark.filterwarnings("ignore::UserWarning")  # a router that has hardly learned
def test_the_solutions_run_after_the_chapter(tmp_path, capsys):
    path = ROOT / "notebooks" / f"{CHAPTER}.ipynb"
    require(path.exists(), "the chapters come with the repository only")
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not [long for long in SMALLER if long not in "\n".join([*code, *solutions(CHAPTER)])]
    known = {"chapter": SimpleNamespace(work=tmp_path)}
    for beginning in CELLS:
        (source,) = (source for source in code if source.startswith(beginning))
        for asking in ANSWERS:
            source = source.partition(asking)[0]
        exec(small(source), known)
        if "routed" in known:
            known["routed"].unload()
    noise, fewer = map(small, solutions(CHAPTER))
    capsys.readouterr()
    exec(noise, known)
    said = capsys.readouterr().out
    assert "Average {" in said and "[0.25 0.25 0.25 0.25 0.25]" in said and "Dynamic {" in said
    assert known["found"].shape == (9, 5, 4) and np.allclose(known["found"].sum(-1), 1, atol=1e-4)
    exec(fewer, known)
    lines = [line for line in capsys.readouterr().out.splitlines() if "texts a task" in line]
    assert [line.partition(":")[0] for line in lines] == ["1 texts a task", "2 texts a task"]
