"""Set the address under which this project is published, everywhere that it stands.

python scripts/publish_as.py OWNER/NAME

The address in `pyproject.toml` is the one that the others are compared with, so that running this twice, or back,
changes nothing else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS = (
    "github.com/",
    "raw.githubusercontent.com/",
    "colab.research.google.com/github/",
    "mybinder.org/v2/gh/",
    "codespaces.new/",
)
"""What stands before OWNER/NAME in an address."""


def main() -> int:
    """Rewrite the files and list them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("address", metavar="OWNER/NAME", help="of the repository on GitHub")
    address = options.parse_args().address
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+", address):
        options.error(f"{address!r} is not OWNER/NAME, for example octocat/routedk-lite")
    changed = publish_as(ROOT, address)
    print("\n".join(changed) if changed else f"everything says {address} already")
    return 0


def publish_as(root: Path, address: str) -> list[str]:
    """Put an address in the place of the present one.

    Args:
        root: of the checkout.
        address: OWNER/NAME.

    Returns:
        The files that were changed.
    """
    present = current(root)
    changed = []
    for path in tracked(root):
        try:
            before = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture, or weights
            continue
        after = rewritten(before, present, address)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(str(path.relative_to(root)))
    return changed


def current(root: Path) -> str:
    """OWNER/NAME as `pyproject.toml` has it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/").rstrip("/")


def rewritten(text: str, present: str, address: str) -> str:
    """A text with one address in the place of another: of the repository, and of its pages."""
    end = r"(?=$|[^\w.-]|\.git\b|\.\s|\.$)"
    for host in HOSTS:
        text = re.sub(rf"(?<=\b{re.escape(host)}){re.escape(present)}{end}", address, text, flags=re.MULTILINE)
    (owner, name), (new_owner, new_name) = present.split("/"), address.split("/")
    pages = rf"\b{re.escape(owner.lower())}\.github\.io/{re.escape(name)}{end}"
    return re.sub(pages, f"{new_owner.lower()}.github.io/{new_name}", text, flags=re.MULTILINE)


def tracked(root: Path) -> list[Path]:
    """The files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := root / name).is_file() and not path.is_symlink()]


if __name__ == "__main__":
    sys.exit(main())
