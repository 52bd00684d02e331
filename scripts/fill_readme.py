"""Write the results table between the README's markers, from the run records.

python scripts/fill_readme.py
"""

from __future__ import annotations

from pathlib import Path

from routedk_lite.data.sessions import PUBLIC_DOMAINS
from routedk_lite.files import atomic_write
from routedk_lite.report.tables import fill_marked, headline_table
from routedk_lite.study.records import load_all

ROOT = Path(__file__).resolve().parents[1]


def filled(text: str) -> str:
    """The README's text with the table that the records give now."""
    table = headline_table(r for r in load_all(ROOT / "results") if r.domain in PUBLIC_DOMAINS)
    return fill_marked(text, {"results": table})


if __name__ == "__main__":
    readme = ROOT / "README.md"
    content = filled(readme.read_text(encoding="utf-8"))
    with atomic_write(readme) as file:
        file.write(content)
