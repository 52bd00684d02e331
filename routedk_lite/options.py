"""Options that several commands share. Each reads its value itself, so that a refusal names both before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from .checked import Limits
from .config import known_profiles
from .places import user_folder, user_path

LARGEST_SEED = 2**32 - 2
"""NumPy takes seeds below 2^32, and the measurement of conflicts trains with the next one."""


def option(read: Callable[[str, str], Any], metavar: str, about: str, *names: str) -> Any:
    """An option whose value is read by a function, which refuses it by raising a `ValueError` that names both.

    Args:
        read: `read(text, name)` gives the value.
        metavar: what stands for the value in the help.
        about: the help.
        names: of the option, if they are not that of the parameter; an argument if there is a name without dashes.
    """

    def named(parameter: typer.CallbackParam, value: Any) -> Any:
        return value if value is None else read(value, parameter.opts[0])

    # Typer's own types would lose some of the text (two slashes) and keep the value out of their messages.
    how = {"parser": lambda text: text, "callback": named, "metavar": metavar, "help": about}
    return typer.Argument(**how) if names and not names[0].startswith("-") else typer.Option(*names, **how)


def number(kind: type[int] | type[float], low: float, high: float = math.inf) -> Callable[[str, str], int | float]:
    """What reads a number from `low` to `high`, for `option`."""
    limits = Limits(low, high, whole=kind is int)

    def read(text: str, name: str) -> int | float:
        try:
            found = kind(text)
        except ValueError:
            raise ValueError(f"{name} = {text!r}: must be {limits}") from None
        if not limits.allow(found):
            raise ValueError(f"{name} = {text}: must be {limits}")
        return found

    return read


def json_object(text: str, name: str) -> dict[str, Any]:
    """What reads the fields of a JSON object, for `option`. A message does not show them: a key may be among them."""
    try:
        found = json.loads(text)
    except ValueError as error:
        where = f", at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{name}: no JSON{where}; must be a JSON object") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}: a {type(found).__name__}, must be a JSON object")
    return found


def one_of(name: str, value: str, known: Collection[str]) -> None:
    """Make sure that a value is known.

    Raises:
        ValueError: it is not.
    """
    if value not in known:
        raise ValueError(f"{name} = {value!r}: choose one of {', '.join(known)}")


ProfileName = Annotated[str, typer.Option(help=f"One of {', '.join(known_profiles())}.")]
TrainedOn = Annotated[
    str | None,
    typer.Option(
        help="Whose sessions the experts were trained on, a name or a folder. Needed where the profile decodes bundles "
        f"from pairs ({', '.join(name for name, one in known_profiles().items() if one.answers == 'pairs')})."
    ),
]
DomainName = Annotated[
    str | None,
    typer.Option(help="electronic, clothing, food, toyshop or habits; or a folder of your own sessions: ./mine."),
]
Seed = Annotated[int, option(number(int, 0, LARGEST_SEED), "INTEGER", "Seed of training.")]
SampleSeed = Annotated[int, option(number(int, 0, LARGEST_SEED), "INTEGER", "Seed of sampled answers.")]
Results = Annotated[Path, option(user_folder, "PATH", "Folder of the run records.")]
Work = Annotated[Path, option(user_folder, "PATH", "Folder of adapters and unfinished work.")]
Exported = Annotated[
    Path, option(user_folder, "FOLDER", "Where to write the model: a new folder, or one exported before.", "folder")
]
SessionsFile = Annotated[Path, option(user_path, "SESSIONS", "A table of sessions, or a folder of them.", "sessions")]
Experts = Annotated[
    Path, option(user_folder, "FOLDER", "A trained expert, or a model that `routedk export` wrote.", "--experts")
]
Table = Annotated[
    Path | None, option(user_path, "FILE", "The table to write, .csv or .jsonl; by default <SESSIONS>.bundles.csv.")
]
Samples = Annotated[
    int | None,
    option(number(int, 1), "INTEGER", "Consensus of so many sampled answers instead of the profile's way; 1: greedy."),
]
Longest = Annotated[
    int | None,
    option(number(int, 1), "INTEGER", "Flag sessions of more items; by default as in training."),
]
Page = Annotated[Path, option(user_path, "PAGE", "The HTML file to write.", "page")]
Out = Annotated[
    Path | None,
    option(user_folder, "PATH", "Folder of the result; by default knowledge/<domain>, or your folder of sessions."),
]
ClaimsFile = Annotated[Path | None, option(user_path, "PATH", "The claims; by default claims.yml of this project.")]
Book = Annotated[
    Path | None, option(user_folder, "PATH", "Bring replication.md in this folder, and its figure, up to date.")
]
Limit = Annotated[int | None, option(number(int, 1), "INTEGER", "Only so many sessions.")]
Concurrency = Annotated[int, option(number(int, 1), "INTEGER", "Calls under way at the same time.")]
PriceIn = Annotated[float | None, option(number(float, 0), "FLOAT", "Price of a million tokens of questions.")]
PriceOut = Annotated[float | None, option(number(float, 0), "FLOAT", "Price of a million tokens of answers.")]
Extra = Annotated[Any, option(json_object, "JSON", "More fields of each request, as JSON; null takes a field out.")]
