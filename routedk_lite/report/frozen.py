"""The recipe of the study's grid stays as it was before the grid's first run: else its runs could not be compared."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Profile, digest, get_profile, settings


class RecipeChangedError(ValueError):
    """A setting has changed since the recipe was frozen."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The recipe of a grid, as `claims.yml` names it."""

    profile: str
    date: str
    """Day from which it stays as it is, as `2026-11-29`."""
    recipe: str
    """`recipe_digest` on that day."""


def recipe_digest(profile: Profile) -> str:
    """Changes with whatever a run of the study depends on: student, texts, training, router, votes, answers."""
    whole = (getattr(profile, name) for name in ("student", "prompt", "train", "router", "decode", "vote"))
    return digest(*whole, profile.pairs and settings(profile.pairs), profile.answers, profile.place, profile.ties_rank)


def check_frozen(frozen: Frozen) -> None:
    """The recipe is what it was.

    Raises:
        RecipeChangedError: it is not.
    """
    found = recipe_digest(get_profile(frozen.profile))
    if found != frozen.recipe:
        raise RecipeChangedError(
            f"claims.yml, frozen: the recipe of {frozen.profile!r} has changed since {frozen.date} ({found}, it was "
            f"{frozen.recipe}), so new runs could not be compared with those before: change it back, or give the new "
            "recipe a profile of its own"
        )
