"""Figures of the report can be read on a phone, in the light and in the dark."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from conftest import ROOT
from matplotlib.text import Text
from synthetic import CLAIMS, stand_in, write_study

from routedk_lite.report import comparing, scores
from routedk_lite.report.figure import claims_figure
from routedk_lite.report.scores import scored
from routedk_lite.report.strip import strip_figure
from routedk_lite.report.style import DARK, LIGHT, NARROW, QUIET, dark_twin, in_the_dark, palette, write_twins
from routedk_lite.report.verdicts import judge
from routedk_lite.study.records import load_all

PHONE = 368
"""Pixels of a figure on a screen of 400."""
TEXT = ("ink", "quiet", "blue", "red", "green", "violet")
"""Colours that letters have."""
MARKS = ("blue", "orange", "green", "red", "violet", "quiet", "line")


def luminance(colour) -> float:
    """Of the definition of contrast in WCAG 2."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def turned_round(colour) -> tuple[float, ...]:
    """What the site's style sheet makes of a chapter's colour in the dark: invert(.92), then hue-rotate(180deg)."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.92 - 0.84 * c for c in to_rgb(colour))
    weights = (0.213, 0.715, 0.072)
    grey = sum(w * c for w, c in zip(weights, (red, green, blue), strict=True))
    return tuple(min(1.0, max(0.0, 2 * grey - c)) for c in (red, green, blue))


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The forest plot of claims with and without verdicts, and a strip plot."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    write_study(folder, domains=("food",), seeds=(0,))
    records = load_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "load_domain", stand_in)
        patch.setattr(scores, "_sessions", stand_in)
        made = {
            "forest": claims_figure(judge(CLAIMS, records, n_draws=100), note="Recorded: a student, " * 8),
            "strip": strip_figure([s for s in scored(records) if s.domain == "electronic"]),
        }
    for figure in made.values():
        figure.draw_without_rendering()
    return made


def texts(figure) -> list[Text]:
    """All that is drawn: numbers beyond the ends of an axis exist, and are not."""
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    beyond = {
        label
        for tick in axes.xaxis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not low <= tick.get_loc() <= high
    }
    return [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in beyond]


@pytest.mark.parametrize("name", ["forest", "strip"])
def test_letters_are_large_enough_on_a_phone(figures, name):
    figure = figures[name]
    assert figure.get_figwidth() == NARROW
    pixels = PHONE / (72 * NARROW)
    assert min(text.get_fontsize() for text in texts(figure)) * pixels > 9.5


@pytest.mark.parametrize("name", ["forest", "strip"])
def test_no_text_leaves_the_figure_or_lies_on_another(figures, name):
    figure = figures[name]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for words, box in boxes:
        assert box.x0 >= -1 and box.x1 <= figure.bbox.width + 1, words
        assert box.y0 >= -1 and box.y1 <= figure.bbox.height + 1, words
    touching = [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]
    assert not touching


@pytest.mark.parametrize("name", ["forest", "strip"])
def test_a_figure_is_written_in_two_palettes_without_a_ground(figures, name, tmp_path):
    light, dark = write_twins(figures[name], tmp_path / "f.svg", salt="s", key="the key")
    assert dark == dark_twin(light) == tmp_path / "f-dark.svg"
    day, night = (path.read_text(encoding="utf-8") for path in (light, dark))
    assert "the key" in day and "the key" in night and len(day) == len(night)
    assert not set(re.findall(r"#[0-9a-f]{6}(?=[;\"])", night)) & (set(LIGHT.values()) - set(DARK.values()))
    (ground,) = re.findall(r'<g id="patch_1">(.*?)</g>', day, re.DOTALL) or [""]
    assert "fill:" not in ground or LIGHT["ground"] not in ground
    again = write_twins(figures[name], tmp_path / "g.svg", salt="s", key="the key")[0]
    assert again.read_text(encoding="utf-8") == day


def test_a_colour_without_a_dark_twin_is_refused():
    assert in_the_dark(f'<path style="fill: {LIGHT["ink"]}; stroke: {LIGHT["blue"]}"/>') == (
        f'<path style="fill: {DARK["ink"]}; stroke: {DARK["blue"]}"/>'
    )
    with pytest.raises(ValueError, match="has the colour #123456: choose one of style.LIGHT"):
        in_the_dark('<path style="fill: #123456"/>')


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_both_palettes_can_be_read(colours):
    assert LIGHT.keys() == DARK.keys() and len(set(LIGHT.values())) == len(LIGHT)
    for name in TEXT:
        assert contrast(colours[name], colours["ground"]) >= 4.5, name
    for name in ("ink", "quiet"):
        assert contrast(colours[name], colours["band"]) >= 4.5, name
    for name in MARKS:
        assert contrast(colours[name], colours["ground"]) >= 3, name
    for name in ("blue", "orange", "green"):  # over the band of the margin
        assert contrast(colours[name], colours["margin"]) >= 3, name


def test_figures_of_chapters_can_be_read_in_the_dark_as_the_style_sheet_turns_them():
    css = (ROOT / "book/assets/routedk.css").read_text(encoding="utf-8")
    assert "filter: invert(.92) hue-rotate(180deg);" in css and "mix-blend-mode: lighten;" in css
    ground = turned_round("white")
    assert max(ground) < 0.09, "white becomes the theme's ground"
    for colour in ("black", "0.15", QUIET):
        assert contrast(turned_round(colour), DARK["ground"]) >= 4.5
    for colour in palette()[:5]:
        assert contrast(turned_round(colour), DARK["ground"]) >= 3
