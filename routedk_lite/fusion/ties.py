"""TIES merging (Yadav et al., arXiv 2306.01708) of LoRA experts, on the full ΔW of every module.

On A and B apart, as a merge of adapters is often done, the trimming and the signs would be those of other matrices:
the entries of B A are sums of products of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from ..student.adapters import Adapter, LowRank, adapted_modules
from .layers import Merged

OVERSAMPLING, POWER_ITERATIONS = 16, 4
"""Of the randomised SVD (Halko et al. 2011): columns beyond the rank, and products that sharpen the spectrum."""


def trim(delta: torch.Tensor, threshold: float) -> torch.Tensor:
    """Reset the entries whose magnitude is below the threshold to zero."""
    return torch.where(delta.abs() >= threshold, delta, 0.0)


def elect_and_merge(trimmed: torch.Tensor) -> torch.Tensor:
    """The sign that outweighs the other, entry by entry, and the mean of the values that have it; plus where both weigh
    the same, as in PEFT.

    Shapes:
        trimmed: (E, d_out, d_in) → (d_out, d_in)
    """
    elected = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agree = (trimmed.sign() == elected) & (trimmed != 0)
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


def module_threshold(delta: torch.Tensor, density: float) -> float:
    """The magnitude above which `density` of a matrix's entries lie."""
    kept = max(1, int(density * delta.numel()))
    return float(delta.abs().flatten().kthvalue(delta.numel() - kept + 1).values)


def global_threshold(deltas: Callable[[], Iterator[torch.Tensor]], density: float) -> float:
    """The same over many matrices, which are made anew on each of two passes and never held together.

    Exact at any size: the bits of floats above zero, read as whole numbers, are in the order of the floats. So the
    first pass counts the upper half of the bits, the second the lower half of those in the place that was found.

    Args:
        deltas: gives an iterator over all matrices of one expert, in float32.
        density: share of entries to keep.
    """
    total, upper = 0, torch.zeros(2**15, dtype=torch.int64)
    for delta in deltas():
        total += delta.numel()
        upper += torch.bincount(_bits(delta) >> 16, minlength=len(upper)).cpu()
    place, wanted = _from_the_top(upper, max(1, int(density * total)))
    lower = torch.zeros(2**16, dtype=torch.int64)
    for delta in deltas():
        bits = _bits(delta)
        lower += torch.bincount(bits[bits >> 16 == place] & 0xFFFF, minlength=len(lower)).cpu()
    last, _ = _from_the_top(lower, wanted)
    return float(torch.tensor(place << 16 | last, dtype=torch.int32).view(torch.float32))


def _bits(delta: torch.Tensor) -> torch.Tensor:
    """The bits of the magnitudes, flat."""
    return delta.float().abs().contiguous().view(torch.int32).flatten()


def _from_the_top(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The place of the entry that is the `wanted`-th from the top, and which one from the top of its place it is."""
    above = counts.flip(0).cumsum(0)
    steps = int(torch.searchsorted(above, wanted))
    place = len(counts) - 1 - steps
    return place, wanted - int(above[steps] - counts[place])


def merge_adapters(
    adapters: Sequence[Adapter], density: float, trim_over: str, rank: int | None = None
) -> Mapping[str, Merged]:
    """Merge the ΔW of several adapters, module by module.

    An adapter that leaves a module alone has a ΔW of zeros there.

    Args:
        adapters: the experts.
        density: share of entries that survive the trimming.
        trim_over: `global` or `module`, see `fusion.Ties.trim`.
        rank: keep a truncated SVD of this rank; `None` keeps the full matrices.
    """

    thresholds = None
    if trim_over == "global":
        thresholds = [global_threshold(_deltas_of(adapter), density) for adapter in adapters]

    def trimmed(i: int, module: str, delta: torch.Tensor) -> torch.Tensor:
        return trim(delta, thresholds[i] if thresholds else module_threshold(delta, density))

    return merge_pruned(adapters, trimmed, rank)


def merge_pruned(
    adapters: Sequence[Adapter], prune: Callable[[int, str, torch.Tensor], torch.Tensor], rank: int | None = None
) -> Mapping[str, Merged]:
    """Prune the ΔW of several adapters, elect and average, module by module.

    Args:
        adapters: the experts.
        prune: gives what is left of a ΔW, from the expert's place, the module's name and the ΔW.
        rank: keep a truncated SVD of this rank; `None` keeps the full matrices.
    """
    merged = {}
    for module in adapted_modules(adapters):
        there = [(i, adapter.modules[module]) for i, adapter in enumerate(adapters) if module in adapter.modules]
        delta = elect_and_merge(torch.stack([prune(i, module, update.delta()) for i, update in there]))
        merged[module] = Merged(delta, None, 0.0) if rank is None else _truncated(delta, rank)
    return merged


def _deltas_of(adapter: Adapter) -> Callable[[], Iterator[torch.Tensor]]:
    return lambda: (update.delta() for update in adapter.modules.values())


def _truncated(delta: torch.Tensor, rank: int) -> Merged:
    """A product of that rank: the best one for small matrices, one close to it for large ones, which take too long."""
    wide = rank + OVERSAMPLING
    if 2 * wide >= min(delta.shape):
        u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # that of CPUs alone: no GPU's is put back behind it
            u, s, v = torch.svd_lowrank(delta, q=wide, niter=POWER_ITERATIONS)
        vt = v.T
    root = s[:rank].sqrt()
    low_rank = LowRank(root[:, None] * vt[:rank], u[:, :rank] * root, 1.0)
    error = float((delta - low_rank.delta()).norm() / delta.norm().clamp(min=1e-30))
    return Merged(None, low_rank, error)
