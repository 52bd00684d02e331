"""Options that several commands share. Each reads its value itself, so that a refusal names both before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from .places import user_folder, user_path

LARGEST_SEED = 2**32 - 1


class Refused(typer.BadParameter):
    """A value that an option cannot take; its message names both."""

    def format_message(self) -> str:
        """The message as it stands, without the words that Typer puts before it."""
        return self.message


def number(name: str, kind: type[int] | type[float], low: float, high: float = math.inf, about: str = "") -> Any:
    """An option that holds a number.

    Args:
        name: of the option.
        kind: `int` or `float`.
        low, high: the smallest and the largest that are taken.
        about: its help.
    """
    rule = "a whole number" if kind is int else "a number"
    rule += f", {low} or more" if math.isinf(high) else f" from {low} to {high}"

    def read(text: str) -> int | float:
        try:
            found = kind(text)
        except ValueError:
            found = math.nan
        if not low <= found <= high or math.isinf(found):
            raise Refused(f"{name} = {str(text)!r}: must be {rule}")
        return found

    return typer.Option(name, parser=read, metavar="INTEGER" if kind is int else "FLOAT", help=about)


def json_object(name: str, about: str) -> Any:
    """An option that holds the fields of a JSON object."""

    def read(text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused(f"{name} = {text!r}: must be a JSON object")
        return found

    return typer.Option(name, parser=read, metavar="JSON", help=about)


def place(name: str, read: Callable[[str | Path, str], Path], about: str) -> Any:
    """An option, or an argument if its name has no dashes, that holds a file or a folder.

    Args:
        name: of the option.
        read: `places.user_folder` or `places.user_path`.
        about: its help.
    """

    def named(text: str | Path) -> Path:
        try:
            return read(text, name)
        except ValueError as error:
            raise Refused(str(error)) from error

    if not name.startswith("-"):
        return typer.Argument(parser=named, metavar=name.upper(), help=about)
    return typer.Option(name, parser=named, metavar="PATH", help=about)


def one_of(name: str, value: str | None, known: Collection[str | None]) -> None:
    """Make sure that a value is known.

    Raises:
        ValueError: it is not.
    """
    if value not in known:
        raise ValueError(f"{name} = {value!r}: choose one of {', '.join(sorted(filter(None, known)))}")


ProfileName = Annotated[str, typer.Option(help="toy, smol, qwen, t4 or paper; control, qwen-1.5b.")]
DomainName = Annotated[str | None, typer.Option(help="electronic, clothing, food, toyshop or habits.")]
Seed = Annotated[int, number("--seed", int, 0, LARGEST_SEED, about="Seed of training.")]
Results = Annotated[Path, place("--results", user_folder, "Folder of the run records.")]
Work = Annotated[Path, place("--work", user_folder, "Folder of adapters and unfinished work.")]
Exported = Annotated[Path, place("folder", user_folder, "Where to write the model: new, empty, or exported before.")]
Page = Annotated[Path, place("page", user_path, "The HTML file to write.")]
Out = Annotated[Path | None, place("--out", user_folder, "Folder of the result; by default knowledge/<domain>.")]
ClaimsFile = Annotated[Path | None, place("--claims", user_path, "The claims; by default claims.yml of this project.")]
Book = Annotated[
    Path | None, place("--book", user_folder, "Bring replication.md in this folder, and its figure, up to date.")
]
Limit = Annotated[int | None, number("--limit", int, 1, about="Only so many sessions.")]
Concurrency = Annotated[int, number("--concurrency", int, 1, about="Calls under way at the same time.")]
PriceIn = Annotated[float | None, number("--price-in", float, 0, about="Price of a million tokens of questions.")]
PriceOut = Annotated[float | None, number("--price-out", float, 0, about="Price of a million tokens of answers.")]
Extra = Annotated[Any, json_object("--extra", "More fields of each request, as JSON; null takes a field out.")]
