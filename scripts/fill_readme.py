"""Write findings, tables and the strip plot into the README, the first page and the page of results.

python scripts/fill_readme.py
"""

from __future__ import annotations

from pathlib import Path

from routedk_lite.report.landing import write_landing
from routedk_lite.study.records import load_all

ROOT = Path(__file__).resolve().parents[1]


if __name__ == "__main__":
    for path in write_landing(ROOT, load_all(ROOT / "results")):
        print(path.relative_to(ROOT))
