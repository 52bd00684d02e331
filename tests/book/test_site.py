"""The built site is complete, self-contained, usable on a phone and in the dark; and how it is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from conftest import ROOT, load_script, require

from routedk_lite.book.recorded import DIFFERS, RECORD

HTML = ROOT / "_build" / "html"
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [CONTENTS["root"], *(chapter["file"] for part in CONTENTS["parts"] for chapter in part["chapters"])]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]

MAX_PAGE_BYTES = 3_000_000
AXE = ROOT / "tests" / "vendor" / "axe" / "axe.min.js"
"""axe-core 4.14.1 (Deque Systems, MPL-2.0): for tests only, no part of the package or of the site."""

PATIENCE = 300_000
"""Milliseconds to wait for a page. A slow or busy machine is no failure."""
# Known and harmless: a browser does not preload fonts from the disk, it loads them when they are used.
HARMLESS_FAILURES = ("_static/vendor/fontawesome/",)


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of the built site."""
    require((HTML / "index.html").exists(), "the book is not built: make book")
    return HTML


# The files


class Links(HTMLParser):
    """What a page offers to link to, what it links to, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sort one element's addresses."""
        found = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := found.get(name))}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and "canonical" not in (found.get("rel") or "") and found.get("href"):
            self.loads.append(found["href"])
        if found.get("src"):
            self.loads.append(found["src"])
        if tag == "img":
            self.images.append(found)


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Links]:
    """Every page of the site."""
    return {page: Links(page) for page in site.rglob("*.html") if "_static" not in page.parts}


def test_what_pages_show_of_the_public_data_is_what_is_recorded(site: Path) -> None:
    said = {page.stem: page.read_text(encoding="utf-8") for page in (site / "notebooks").glob("*.html")}
    old = [name for name, text in said.items() if DIFFERS in text]
    assert not old, f"{RECORD}=yes make book writes the records anew"


def test_every_page_of_the_contents_is_built(site: Path) -> None:
    assert not [page for page in PAGES if not (site / f"{page}.html").exists()]


def test_nothing_is_loaded_from_another_host(parsed: dict[Path, Links]) -> None:
    outside = {
        address
        for page in parsed.values()
        for address in page.loads
        if urlsplit(address).scheme not in {"", "data"} or address.startswith("//")
    }
    assert not outside


def test_internal_links_and_anchors_resolve(parsed: dict[Path, Links]) -> None:
    broken = []
    for page, found in parsed.items():
        for address in found.links + found.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or address == "#":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = "" if "=" in parts.fragment else unquote(parts.fragment)  # with a "=" it is read by an explorer
            known = parsed.get(target)
            if not target.exists() or (anchor and known and anchor not in known.ids):
                broken.append(f"{page.relative_to(HTML)} -> {address}")
    assert not broken


def test_images_say_what_they_show(parsed: dict[Path, Links]) -> None:
    # A cell's figure gets its text from the cell's metadata: {"mystnb": {"image": {"alt": "..."}}}.
    suffixes = (".png", ".svg", ".jpg")
    mute = [
        f"{page.relative_to(HTML)}: {image.get('src')}"
        for page, found in parsed.items()
        for image in found.images
        if not (image.get("alt") or "").strip() or image["alt"].endswith(suffixes)
    ]
    assert not mute


def test_pages_are_light(parsed: dict[Path, Links]) -> None:
    """A page with what it alone loads; scripts that all pages share, such as MathJax, are fetched once."""
    heavy = {}
    for page, found in parsed.items():
        own = {page, *((page.parent / unquote(image["src"])).resolve() for image in found.images if _is_local(image))}
        size = sum(path.stat().st_size for path in own)
        if size > MAX_PAGE_BYTES:
            heavy[page.name] = size
    assert not heavy


def _is_local(image: dict[str, str | None]) -> bool:
    return bool(image.get("src")) and not urlsplit(image["src"]).scheme


def test_chapters_open_in_colab_and_other_pages_do_not(parsed: dict[Path, Links]) -> None:
    slug = REPOSITORY.removeprefix("https://github.com/")
    for page in PAGES:
        links = parsed[HTML / f"{page}.html"].links
        colab = {link for link in links if link.startswith("https://colab.research.google.com/")}
        wanted = f"https://colab.research.google.com/github/{slug}/blob/main/{page}.ipynb"
        assert colab == ({wanted} if page in CHAPTERS else set())


# The site in a browser

SETTLED = """Promise.allSettled(
  document.getAnimations().filter(one => one instanceof CSSTransition).map(one => one.finished))"""
"""Buttons fade from one theme's colours to the other's while a page opens: who looks at colours waits for it."""


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Callable[..., Any]]:
    """Open a page from the disk; at the end, no request left the disk and no script failed."""
    contexts, trouble = [], []

    def note_request(request: Any) -> None:
        if urlsplit(request.url).scheme not in {"file", "data", "blob"}:
            trouble.append(f"request to {request.url}")

    def note_failure(request: Any) -> None:
        if not any(part in request.url for part in HARMLESS_FAILURES):
            trouble.append(f"could not load {request.url}")

    def note_error(error: Any) -> None:
        trouble.append(f"script error: {error}")

    def open_page(page: str, *, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("request", note_request)
        tab.on("requestfailed", note_failure)
        tab.on("pageerror", note_error)
        tab.goto((site / f"{page}.html").as_uri())
        tab.wait_for_function("!window.MathJax || (MathJax.startup && MathJax.startup.promise)")
        tab.evaluate("window.MathJax && MathJax.startup.promise")
        tab.evaluate(SETTLED)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_and_is_complete(page: str, visit: Callable[..., Any]) -> None:
    tab = visit(page)
    assert tab.locator("article h1").first.is_visible()
    assert tab.locator("input[type=search]").count() == 1
    formulas = tab.locator("article .math").count()
    assert tab.locator("article mjx-container").count() >= formulas
    assert tab.locator("mjx-merror, [data-mjx-error]").count() == 0
    text = tab.locator("article").inner_text()
    assert not [mark for mark in (r"\(", r"\[", "$$", "{cite}", "|—") if mark in text]
    elsewhere = ":not(figure:has(figcaption) svg):not(mjx-container svg):not(button svg)"  # named by what holds them
    unnamed = f"svg:not([aria-hidden=true]):not([role]){elsewhere}"
    assert tab.locator(f"article {unnamed}").count() == 0


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(page: str, visit: Callable[..., Any]) -> None:
    tab = visit(page, width=400)
    root = "document.documentElement"
    assert tab.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    tab.locator("button.primary-toggle:visible, label.primary-toggle:visible").first.click()
    link = tab.locator(".bd-sidebar-primary a.internal:visible").last
    link.wait_for()
    tab.wait_for_function("document.querySelector('.bd-sidebar-primary').getBoundingClientRect().left >= 0")


HIDDEN = """() => {
  const column = document.querySelector("article").getBoundingClientRect(), found = [];
  for (const e of document.querySelectorAll("article :is(table, pre, img, svg, iframe, mjx-container)")) {
    const box = e.getBoundingClientRect();
    const edge = e.closest(".tag_full-width") ? document.documentElement.clientWidth : column.right;
    const within = e.tagName === "MJX-CONTAINER" ? 0 : e.scrollWidth - e.clientWidth;  // a formula's glyphs lean out
    if (!box.width || (box.right <= edge + 2 && within <= 2)) continue;
    let around = e;
    while (around && !around.classList.contains("rdk-more-right")) around = around.parentElement;
    if (!around) found.push(`${e.tagName} ${Math.round(box.width)} px: ${(e.innerText || "").slice(0, 40)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_cut_off_without_a_sign_that_there_is_more(page: str, width: int, visit: Callable[..., Any]) -> None:
    tab = visit(page, width=width)
    # Folded cells are opened, so that what is inside is looked at, too.
    tab.evaluate("document.querySelectorAll('article details').forEach(fold => fold.open = true)")
    tab.wait_for_timeout(500)
    assert not tab.evaluate(HIDDEN)


@pytest.mark.parametrize("page", PAGES)
def test_tables_fit_a_wide_screen(page: str, visit: Callable[..., Any]) -> None:
    tab = visit(page)
    wide = """[...document.querySelectorAll("article table")]
        .filter(t => t.offsetWidth > t.parentElement.clientWidth + 2)
        .map(t => `${t.offsetWidth} px: ${t.innerText.slice(0, 60)}`)"""
    assert not tab.evaluate(wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_serious_accessibility_finding(page: str, scheme: str, visit: Callable[..., Any]) -> None:
    tab = visit(page, scheme=scheme)
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    grave = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
    assert not grave


CONTRAST = """selector => {
  const parse = colour => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return {r, g, b, a};
  };
  const light = ({r, g, b}) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.a > 0.5) return colour;
    }
    return {r: 255, g: 255, b: 255};
  };
  return [...document.querySelectorAll(selector)].filter(e => e.textContent.trim()).map(e => {
    const style = getComputedStyle(e);
    const front = light(parse(e instanceof SVGElement ? style.fill : style.color));
    const back = light(behind(e));
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(scheme: str, visit: Callable[..., Any]) -> None:
    tab = visit(CONTENTS["root"], scheme=scheme)
    assert tab.locator("html").get_attribute("data-theme") == scheme
    # The article's text, and the text of the figure, against what lies behind it (WCAG AA: 4.5 to 1).
    for selector in ("article p, article li", "article svg text"):
        contrast = tab.evaluate(CONTRAST, selector)
        assert len(contrast) > 5
        assert min(contrast) >= 4.5
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(back[:3]) < 3 * 60) == (scheme == "dark")


def test_the_summary_prints_on_one_sheet(visit: Callable[..., Any]) -> None:
    tab = visit("book/summary")
    assert len(re.findall(rb"/Type\s*/Page\b", tab.pdf(prefer_css_page_size=True))) == 1


def test_search_finds_a_page(visit: Callable[..., Any]) -> None:
    tab = visit(CONTENTS["root"])
    tab.locator("button.search-button-field:visible").click()
    tab.locator("input[type=search]").fill("bundle")
    tab.keyboard.press("Enter")
    tab.locator("#search-results li").first.wait_for()
    assert tab.locator("#search-results li").count() >= 2


def test_descriptions_with_a_colon_are_no_types(site: Path) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "book" / "api").glob("*.html"))
    assert "NEVER_TOUCHED" in text
    assert 'Type<span class="colon">' not in text
    assert "Alias for field number" not in text


# The script that builds it


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The build script, at work in an empty folder."""
    module = load_script("build_book")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return module


def write_notebook(path: Path, *sources: str) -> Path:
    """Write a notebook of code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_fingerprint_follows_content_and_surroundings(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "a.py").write_text("x = 1")
    seen = {builder.fingerprint(["code", "missing"])}
    (tmp_path / "code" / "__pycache__" / "a.pyc").write_text("compiled")
    for nobodys in (".DS_Store", "Thumbs.db", ".ipynb_checkpoints"):
        (tmp_path / "code" / nobodys).write_text("opened")
    assert builder.fingerprint(["code", "missing"]) in seen
    (tmp_path / "code" / "a.py").write_text("x = 2")
    seen.add(builder.fingerprint(["code", "missing"]))
    (tmp_path / "code" / "a.py").rename(tmp_path / "code" / "b.py")
    seen.add(builder.fingerprint(["code", "missing"]))
    monkeypatch.setenv("ROUTEDK_MIRROR", "elsewhere")
    seen.add(builder.fingerprint(["code", "missing"]))
    seen.add(builder.fingerprint(["code", "missing"], data=True))
    assert len(seen) == 5


def test_the_book_is_built_with_the_public_sessions_or_goes_on_without(
    builder: ModuleType, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.setenv("ROUTEDK_MIRROR", str(tmp_path / "nothing"))
    assert not builder.have_data(fetch=True)
    assert "chapters show what is recorded of them: cannot fetch" in capsys.readouterr().out
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    assert not builder.have_data(fetch=False)
    assert builder.have_data(fetch=True) and builder.have_data(fetch=False)


def test_widgets_give_way_to_their_picture(builder: ModuleType, tmp_path: Path) -> None:
    show = "from IPython.display import display\ndisplay({!r}, raw=True)"
    widget = {builder.WIDGET: {"model_id": "1"}, "text/plain": "a bar"}
    path = write_notebook(
        tmp_path / "a.ipynb", show.format(widget), show.format({**widget, "text/html": "<i>seen</i>"})
    )
    builder.execute([path], timeout=60)
    from jupyter_cache import get_cache

    _, merged = get_cache(builder.CACHE).merge_match_into_notebook(nbformat.read(path, as_version=4))
    bar, picture = merged.cells
    assert not bar.outputs
    assert picture.outputs[0].data == {"text/html": "<i>seen</i>", "text/plain": "a bar"}


def test_outputs_land_in_the_cache_and_errors_are_named(builder: ModuleType, tmp_path: Path) -> None:
    good = write_notebook(tmp_path / "good.ipynb", "print(6 * 7)")
    bad = write_notebook(tmp_path / "bad.ipynb", "raise ValueError('no')")
    before = good.read_bytes()
    with pytest.raises(SystemExit, match=r"bad\.ipynb"):
        builder.execute([bad, good], timeout=60)
    assert builder.stale([bad, good]) == [bad]
    assert good.read_bytes() == before
    from jupyter_cache import get_cache

    _, merged = get_cache(builder.CACHE).merge_match_into_notebook(nbformat.read(good, as_version=4))
    assert merged.cells[0].outputs[0].text == "42\n"


def test_chapters_share_what_they_train(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUTEDK_WORK", raising=False)
    monkeypatch.setattr(builder, "WORK", tmp_path / "runs")
    folder = "from pathlib import Path\nimport os\nwork = Path(os.environ['ROUTEDK_WORK'])\n"
    first = write_notebook(tmp_path / "first.ipynb", folder + "work.mkdir()\n(work / 'expert').touch()")
    second = write_notebook(tmp_path / "second.ipynb", folder + "assert (work / 'expert').exists()")
    monkeypatch.setattr(builder, "TRAINED_BY", {"second": ["first"]})
    builder.execute([second, first], timeout=60, jobs=2)
    assert builder.stale([first, second]) == []


def test_chapters_side_by_side_wait_for_what_they_load() -> None:
    builder = load_script("build_book")
    names = [path.stem for path in builder.notebooks()]
    assert {*builder.TRAINED_BY, *chain(*builder.TRAINED_BY.values())} <= {*names}
    loading = {p.stem for p in builder.notebooks() if "experts-" in p.read_text(encoding="utf-8")}
    first, *others = sorted(loading)
    assert all(first in builder.TRAINED_BY[name] for name in others)


def test_notebooks_run_side_by_side(builder: ModuleType, tmp_path: Path) -> None:
    wait_for = (
        "from pathlib import Path\nimport time\nPath({!r}).touch()\nwhile not Path({!r}).exists(): time.sleep(0.1)"
    )
    here, there = str(tmp_path / "a"), str(tmp_path / "b")
    both = [
        write_notebook(tmp_path / "a.ipynb", wait_for.format(here, there)),
        write_notebook(tmp_path / "b.ipynb", wait_for.format(there, here)),
    ]
    builder.execute(both, timeout=60, jobs=2)
    assert builder.stale(both) == []
