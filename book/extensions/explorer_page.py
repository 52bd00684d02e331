"""Sphinx extension: the directive `router-explorer` puts a live router explorer into a page, without a kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from routedk_lite.book.explorer.static import RouterExplorer

NOTHING = (
    "There is nothing to explore here: no study with an explorer is recorded for sessions on this machine. "
    "make book fetches the sessions and runs chapter 08, whose toy shop then stands here."
)


def first_explorer(results: Path, trained: Path) -> RouterExplorer | None:
    """The explorer of real sessions, of the most complete study; else the toy shop's.

    Args:
        results: the recorded runs.
        trained: where chapter 08 has recorded its own; only looked into if the real sessions are not at hand.
    """
    from routedk_lite.book.explorer.data import available
    from routedk_lite.book.explorer.static import RouterExplorer
    from routedk_lite.data.domains import domain_is_cached
    from routedk_lite.data.sessions import PUBLIC_DOMAINS
    from routedk_lite.report.scores import main_profile
    from routedk_lite.study.records import load_all

    main = main_profile(load_all(results))
    has_all = bool(os.environ.get("ROUTEDK_MIRROR"))
    real = [(p, d) for p, d in available(results) if d in PUBLIC_DOMAINS and (has_all or domain_is_cached(d))]
    if real:
        profile, domain = min(real, key=lambda found: (found[0] != main, PUBLIC_DOMAINS.index(found[1])))
        return RouterExplorer.from_results(results, profile, domain)
    for profile, domain in available(trained):
        return RouterExplorer.from_results(trained, profile, domain, label=f"{profile}, run now")
    return None


class Explorer(SphinxDirective):
    """`{router-explorer}`, without content."""

    def run(self) -> list[nodes.Node]:
        """Make the explorer while the page is read."""
        root = Path(self.env.app.srcdir)
        work = Path(os.environ.get("ROUTEDK_WORK", root / "_build" / "runs"))
        made = first_explorer(root / "results", work / "results")
        if made is None:
            return [nodes.paragraph(NOTHING, NOTHING)]
        return [nodes.raw("", f'<div class="rdk-explorer">{made._repr_html_()}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the directive."""
    app.add_directive("router-explorer", Explorer)
    return {"parallel_read_safe": True}
