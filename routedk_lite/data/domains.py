"""A domain by its name: the three public ones and two toy ones, loaded the same way."""

from __future__ import annotations

from . import habits, toyshop
from .public import is_cached, load_public
from .sessions import DOMAINS, PUBLIC_DOMAINS, SPLITS, TOY_DOMAINS, Domain


def load_domain(name: str, split: str) -> Domain:
    """Load one split of one domain, downloading and verifying the public files on first use.

    The official test and training sets are used as they are; validation sessions are those in neither.

    Args:
        name: one of `DOMAINS`: `electronic`, `clothing`, `food`, `toyshop` or `habits`.
        split: `train`, `validation` or `test`.

    Raises:
        ValueError: unknown domain or split.
        DownloadError: the files are neither cached nor to be had.
        DataError: a file holds a malformed record.
    """
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}: choose one of {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if name in TOY_DOMAINS:
        sessions = {"toyshop": toyshop, "habits": habits}[name].load(split)
        return Domain(name=name, split=split, sessions=sessions)
    return load_public(name, split)


def domain_is_cached(name: str) -> bool:
    """Whether a domain can be loaded without the network."""
    return name not in PUBLIC_DOMAINS or is_cached(name)
