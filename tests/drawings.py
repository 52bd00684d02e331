"""What tests of figures share: a session to draw, the texts in a figure, and whether everything is on its sheet."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from routedk_lite.data.sessions import Session


def make_session(n_items=5, bundles=({1, 2, 3}, {3, 4}), titles=None, intents=None) -> Session:
    names = tuple(f"product {n}" for n in range(1, n_items + 1))
    return Session(
        id=1,
        items=names,
        titles=tuple(titles or names),
        bundles=tuple(frozenset(b) for b in bundles),
        intents=tuple(intents or [f"intent {n}" for n in range(len(bundles))]),
    )


def texts(figure: Figure) -> list[str]:
    """Every text in the figure, from top to bottom of its drawing order."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def assert_inside(figure: Figure) -> None:
    """Everything that is drawn lies on the sheet (to a pixel)."""
    figure.draw_without_rendering()  # a figure that pyplot has let go of has no canvas that draws
    sheet = figure.bbox
    for axes in figure.axes:
        for artist in [*axes.texts, *axes.lines, *axes.patches]:
            box = artist.get_window_extent()
            if artist.get_clip_on() and artist.get_clip_box():
                box = matplotlib.transforms.Bbox.intersection(box, artist.get_clip_box()) or sheet
            assert box.x0 >= sheet.x0 - 1, artist
            assert box.x1 <= sheet.x1 + 1, artist
            assert box.y0 >= sheet.y0 - 1, artist
            assert box.y1 <= sheet.y1 + 1, artist


def assert_apart(figure: Figure) -> None:
    """No two texts lie on each other: titles, labels of points, tick labels of one axis."""
    figure.draw_without_rendering()
    free = [text for axes in figure.axes for text in (axes.title, *axes.texts)]
    groups = [free, *([*axis.get_ticklabels()] for axes in figure.axes for axis in (axes.xaxis, axes.yaxis))]
    for group in groups:
        # `Text`'s own: the extent of an annotation would hold its arrow, too.
        shown = [text for text in group if text.get_text() and text.get_visible()]
        boxes = [(text.get_text(), matplotlib.text.Text.get_window_extent(text).padded(-1)) for text in shown]
        for k, (name, box) in enumerate(boxes):
            for other, there in boxes[:k]:
                assert not box.overlaps(there), f"{name!r} lies on {other!r}"
