"""What the pages print can be typed: commands have the options that they are shown with, messages are the package's."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import nbformat
import pytest
import typer
import yaml
from conftest import ROOT

from routedk_lite.__main__ import app
from routedk_lite.config import get_profile
from routedk_lite.study.pipeline import Pipeline

PAGES = [*sorted((ROOT / "book").glob("*.md")), ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]
TROUBLE = ROOT / "book" / "troubleshooting.md"


def text_of(path: Path) -> str:
    """The prose of a page or a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def commands(text: str) -> list[str]:
    """`routedk …` with arguments: in blocks of console input, and in code within a line."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(routedk [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line for line in lines + inline if line.startswith("routedk ") and "<stage>" not in line]


PRINTED = [(path.name, command) for path in PAGES for command in commands(text_of(path))]


@pytest.mark.parametrize(("page", "command"), PRINTED)
def test_printed_commands_are_understood(page: str, command: str) -> None:
    words, found = shlex.split(re.sub("<[^>]*>", "x", command))[1:], typer.main.get_command(app)
    name = "routedk"
    while hasattr(found, "commands"):
        assert words and words[0] in found.commands, f"{page}: {name} has no {words[:1]}"
        name = words.pop(0)
        found = found.commands[name]
    if not words and any(option.required for option in found.params):
        return  # the command's name, in a sentence
    context = found.make_context(name, words)
    if name == "run":
        values = context.params
        profile = get_profile(values["profile"])
        assert Pipeline(profile, values["domain"]).chosen(values["only"] or (), values["part"])


def test_commands_were_found_at_all() -> None:
    assert len({command for _, command in PRINTED}) > 30


def messages_of_the_package() -> str:
    """All texts in its source, with … for what is put in."""
    found = []
    for path in (ROOT / "routedk_lite").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_on_the_troubleshooting_page_are_those_of_the_package() -> None:
    text = TROUBLE.read_text(encoding="utf-8")
    terms = re.findall(r"^(.+)\n: ", text, re.MULTILINE)
    quoted = [m for term in terms if "PyTorch" not in term for m in re.findall(r"``(.+?)``|(?<!`)`([^`]+)`", term)]
    messages = [a or b for a, b in quoted if " " in (a or b)]
    assert len(messages) > 25
    known = messages_of_the_package()
    strange = [
        piece.strip()
        for message in messages
        for piece in re.split("…", message)
        if len(piece.strip(" .,:;'")) > 3 and piece.strip() not in known
    ]
    assert not strange


def test_the_introduction_lists_every_page_in_its_part_with_the_minutes_of_the_readme() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    intro = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for part in contents:
        if part["caption"] in ("The package", "Reference"):
            continue
        section = re.search(rf"^### {part['caption']}\n(.*?)(?=^##)", intro, re.MULTILINE | re.DOTALL)[1]
        rows = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) .*?\| *(\d*) \|$", section, re.MULTILINE)
        files = [chapter["file"] for chapter in part["chapters"]]
        assert [re.sub(r"^\.\./|\.(md|ipynb)$", "", link) for link, _ in rows] == [
            file.removeprefix("book/") for file in files
        ]
        for file, (_, run) in zip(files, rows, strict=True):
            if file.startswith("notebooks/"):
                assert f"]({file}.ipynb) | {run} min |" in readme, file


def test_the_sidebar_numbers_chapters_and_only_the_recipe_stands_between_them() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    pages = [chapter for part in contents for chapter in part["chapters"]]
    numbered = [place for place, page in enumerate(pages) if re.match(r"\d\d ", page.get("title", ""))]
    between = set(range(numbered[0], numbered[-1])) - set(numbered)  # where "next" does not lead to a chapter
    assert [pages[place]["file"] for place in between] == ["book/recipe"]
    assert pages[min(between) - 1]["file"].startswith("notebooks/05")
    assert [int(pages[place]["title"][:2]) for place in numbered] == list(range(12))
    intro = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    for page in (pages[place] for place in numbered):
        name = page["file"].removeprefix("book/")
        number = re.match(r"notebooks/(\d\d)", name)
        assert not number or page["title"].startswith(number[1])
        called = re.search(rf"\| \[([^]]+)\]\((?:\.\./)?{name}\.(?:md|ipynb)\)", intro)
        assert called and called[1] == page["title"]


def test_questions_that_are_called_ready_have_their_stages() -> None:
    page = (ROOT / "book" / "open-questions.md").read_text(encoding="utf-8")
    named = [re.findall(r"`([a-z0-9*-]+)`", cell) for cell in re.findall(r"\| ready: ([^|]+)\|", page)]
    patterns = [pattern for found in named for pattern in found]
    assert len(patterns) > 10
    study = Pipeline("smol", "food")
    for pattern in patterns:
        assert len(study.chosen([pattern])) > 2, pattern
