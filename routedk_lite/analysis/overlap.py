"""How far the updates of trained experts point the same way: cosine of ΔW and shared subspaces, each beside chance.

RouteDK (arXiv 2508.17250) trains an expert per kind of knowledge, because the kinds would disturb each other in one;
what the experts' weights have in common it does not report. ΔW = s B A is never formed: all that is asked of it
follows from products of the thin factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch

from ..fusion.placing import LAYER
from ..student.adapters import Adapter, LowRank

RANDOM_DRAWS = 20
"""Pairs of random subspaces behind an expected angle."""
_NEGLIGIBLE = 1e-6
"""A singular value below this share of the largest counts as zero."""


class SpaceOverlap(NamedTuple):
    """How much two subspaces share, mean over modules, beside what random subspaces of the same ranks share."""

    shared: float
    """Mean cos² of the principal angles: 1 where the smaller space lies in the larger, 0 at right angles (Hu et al.,
    arXiv 2106.09685, section 7.2)."""
    shared_floor: float
    """Expected for random subspaces: larger rank / dimension."""
    angle: float
    """Smallest principal angle, in degrees."""
    angle_floor: float
    """Its mean over random subspaces."""


class DeltaOverlap(NamedTuple):
    """What the updates of two experts have in common, in one layer or in all."""

    first: str
    second: str
    layer: int | None
    """As numbered in the student, from 0; `None`: all layers."""
    cosine: float
    """Of the two ΔW, all modules as one vector."""
    cosine_floor: float
    """Standard deviation of that cosine, had one of the two been turned at random in its rows and columns."""
    columns: SpaceOverlap
    """Of the column spaces, in which the updates write."""
    rows: SpaceOverlap
    """Of the row spaces, which the updates read. Experts of one seed begin with the same A and keep much of it: here
    the floor that counts is that of experts of the same seed, not of random ones."""

    def to_json(self) -> dict[str, Any]:
        """As plain values, five decimals."""
        spaces = {side: getattr(self, side)._asdict() for side in ("columns", "rows")}
        numbers = {"cosine": round(self.cosine, 5), "cosine_floor": round(self.cosine_floor, 5)}
        rounded = {side: {k: round(v, 5) for k, v in space.items()} for side, space in spaces.items()}
        return {"first": self.first, "second": self.second, "layer": self.layer, **numbers, **rounded}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> DeltaOverlap:
        """What `to_json` gave."""
        return cls(**{**row, **{side: SpaceOverlap(**row[side]) for side in ("columns", "rows")}})


class _Shared(NamedTuple):
    """One module's part."""

    layer: int
    inner: float
    norms: tuple[float, float]
    dims: tuple[int, int]
    """d_out, d_in."""
    columns: SpaceOverlap | None
    """`None` where only one of the experts adapts the module."""
    rows: SpaceOverlap | None


def delta_inner(one: LowRank, other: LowRank) -> float:
    """⟨ΔW₁, ΔW₂⟩ = s₁ s₂ Σ (B₁ᵀB₂ ∘ A₁A₂ᵀ), from matrices of r₁ × r₂."""
    b = one.b.double().T @ other.b.double()  # (r1, r2)
    a = one.a.double() @ other.a.double().T  # (r1, r2)
    return one.scale * other.scale * float((b * a).sum())


def delta_spaces(update: LowRank) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal bases of the column and the row space of ΔW; a rank below r is noticed.

    Shapes:
        → (d_out, rank), (d_in, rank)
    """
    q_b, r_b = torch.linalg.qr(update.b.double())
    q_a, r_a = torch.linalg.qr(update.a.double().T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T)
    kept = s > _NEGLIGIBLE * s.max().clamp(min=1e-300)
    return q_b @ u[:, kept], q_a @ v.T[:, kept]


def principal_angles(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """Principal angles between two subspaces in degrees, smallest first (Björck & Golub 1973).

    Shapes:
        one: (d, r1); other: (d, r2), orthonormal columns → (min(r1, r2),)
    """
    cosines = torch.linalg.svdvals(one.T @ other).clamp(0, 1)
    return torch.rad2deg(torch.arccos(cosines)).numpy()


def delta_overlap(adapters: Sequence[Adapter], *, generator: np.random.Generator) -> list[DeltaOverlap]:
    """Compare the updates of every two experts, layer by layer and over all layers.

    A module that only one of two experts adapts counts as a ΔW of zero in the other's cosine, and not in the spaces.

    Args:
        adapters: two experts or more, of the same student, from `adapters.read_adapter`. With experts of several
            seeds among them, those of one kind and different seeds are the floor of training itself.
        generator: draws the random subspaces.

    Raises:
        ValueError: fewer than two experts, a name that stands there twice, two without a common module, different
            shapes, or an expert with a ΔW of zero.
    """
    names = [adapter.name for adapter in adapters]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"adapters = {names}: give two or more with different names")
    spaces = {adapter.name: _spaces(adapter) for adapter in adapters}
    floors: dict[tuple[int, int, int], float] = {}
    found = []
    for one, other in combinations(adapters, 2):
        parts = list(_compare(one, other, spaces, floors, generator))
        if all(part.columns is None for part in parts):
            raise ValueError(f"{one.name!r} and {other.name!r} adapt no common module: nothing can be compared")
        for layer in [*sorted({part.layer for part in parts}), None]:
            chosen = [part for part in parts if layer is None or part.layer == layer]
            if any(part.columns is not None for part in chosen):
                found.append(_summary(one.name, other.name, layer, chosen))
    return found


def _spaces(adapter: Adapter) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    spaces = {name: delta_spaces(update) for name, update in adapter.modules.items()}
    for name, (columns, _) in spaces.items():
        if columns.shape[1] == 0:
            raise ValueError(f"the expert {adapter.name!r} has a ΔW of zero in {name}: has it been trained?")
    return spaces


def _compare(
    one: Adapter,
    other: Adapter,
    spaces: Mapping[str, Mapping[str, tuple[torch.Tensor, torch.Tensor]]],
    floors: dict[tuple[int, int, int], float],
    generator: np.random.Generator,
) -> Iterable[_Shared]:
    for name in dict.fromkeys([*one.modules, *other.modules]):
        updates = [adapter.modules.get(name) for adapter in (one, other)]
        norms = tuple(0.0 if u is None else math.sqrt(max(delta_inner(u, u), 0.0)) for u in updates)
        inner, columns, rows = 0.0, None, None
        dims = {(u.b.shape[0], u.a.shape[1]) for u in updates if u is not None}
        if len(dims) > 1:
            raise ValueError(f"{name}: ΔW of {one.name!r} and {other.name!r} have the shapes {sorted(dims)}")
        if None not in updates:
            inner = delta_inner(*updates)
            columns, rows = (
                _space_overlap(spaces[one.name][name][k], spaces[other.name][name][k], floors, generator)
                for k in (0, 1)
            )
        place = LAYER.match(name)
        if place is None:
            raise ValueError(f"{name} is not inside a decoder layer")
        yield _Shared(int(place["number"]), inner, norms, dims.pop(), columns, rows)


def _space_overlap(
    one: torch.Tensor,
    other: torch.Tensor,
    floors: dict[tuple[int, int, int], float],
    generator: np.random.Generator,
) -> SpaceOverlap:
    angles = principal_angles(one, other)
    d, ranks = one.shape[0], sorted((one.shape[1], other.shape[1]))
    key = (d, *ranks)
    if key not in floors:
        floors[key] = float(np.mean([_random_angle(*key, generator) for _ in range(RANDOM_DRAWS)]))
    shared = float(np.mean(np.cos(np.deg2rad(angles)) ** 2))
    return SpaceOverlap(shared, ranks[1] / d, float(angles[0]), floors[key])


def _random_angle(d: int, r1: int, r2: int, generator: np.random.Generator) -> float:
    """Smallest angle between a random subspace and another, for which any will do: the first coordinates."""
    basis, _ = np.linalg.qr(generator.standard_normal((d, r2)))
    largest = np.linalg.svd(basis[:r1], compute_uv=False)[0]
    return float(np.rad2deg(np.arccos(min(largest, 1.0))))


def _summary(first: str, second: str, layer: int | None, parts: Sequence[_Shared]) -> DeltaOverlap:
    one, other = (math.sqrt(sum(part.norms[k] ** 2 for part in parts)) for k in (0, 1))
    # With one of two matrices turned at random, E⟨X, Y⟩² = ‖X‖² ‖Y‖² / (d_out d_in), whatever their ranks.
    variance = sum((part.norms[0] * part.norms[1]) ** 2 / math.prod(part.dims) for part in parts)
    cosine = sum(part.inner for part in parts) / (one * other)
    columns, rows = (
        SpaceOverlap(*np.mean([space for part in parts if (space := getattr(part, side))], axis=0).tolist())
        for side in ("columns", "rows")
    )
    return DeltaOverlap(first, second, layer, cosine, math.sqrt(variance) / (one * other), columns, rows)
