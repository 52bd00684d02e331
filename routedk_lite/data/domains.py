"""A domain by its name or folder: the three public ones, two toy ones and your own, loaded the same way."""

from __future__ import annotations

from pathlib import Path

from . import habits, toyshop
from .own import load_folder, own_folder
from .public import is_cached, load_public
from .sessions import DOMAINS, PUBLIC_DOMAINS, SPLITS, TOY_DOMAINS, Domain


def load_domain(name: str | Path, split: str) -> Domain:
    """Load one split of one domain, downloading and verifying the public files on first use.

    The official test and training sets are used as they are; validation sessions are those in neither. Of a folder of
    your own (`own`), the sessions with bundles are the domain.

    Args:
        name: one of `DOMAINS`: `electronic`, `clothing`, `food`, `toyshop` or `habits`; or a folder of sessions.
        split: `train`, `validation` or `test`.

    Raises:
        ValueError: unknown domain or split.
        DownloadError: the files are neither cached nor to be had.
        DataError: a file holds a malformed record.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if (folder := own_folder(name)) is not None:
        return load_folder(folder, split)
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}: choose one of {', '.join(DOMAINS)}, or a folder of sessions")
    if name in TOY_DOMAINS:
        sessions = {"toyshop": toyshop, "habits": habits}[name].load(split)
        return Domain(name=name, split=split, sessions=sessions)
    return load_public(name, split)


def domain_is_cached(name: str | Path) -> bool:
    """Whether a domain can be loaded without the network."""
    return name not in PUBLIC_DOMAINS or is_cached(name)
