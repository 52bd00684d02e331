"""The project's frame: requirements, addresses, licences, chapters and prose keep their promises."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT, bare_decimals, require
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import routedk_lite

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))
DOCUMENTS = [*PAGES, *sorted(ROOT.glob("*.md")), *NOTEBOOKS]


def short(path: Path) -> str:
    """Name a file from the root, for the names of the tests."""
    return str(path.relative_to(ROOT))


def read_yaml(name: str) -> dict:
    """Read a YAML file at the root."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def tracked_text() -> dict[str, str]:
    """Return every text file that git tracks, or would on `git add`, without what others wrote."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    require(listing.returncode == 0, "needs a git checkout")
    found = {}
    for name in listing.stdout.splitlines():
        if not name.startswith(("book/vendor/", "tests/vendor/")) and (ROOT / name).is_file():
            try:
                found[name] = (ROOT / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return found


def constraints() -> dict[str, str]:
    """Return the tested version of every package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pins}


def markdown(path: Path) -> str:
    """Return the Markdown of a page, or of all the text cells of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


# Requirements


def test_requirements_have_lower_bounds_only() -> None:
    capped = {
        str(requirement)
        for requirement in REQUIREMENTS + EXTRAS
        if [specifier.operator for specifier in requirement.specifier] != [">="]
    }
    assert {Requirement(line).name for line in capped} == {"jupyter-book"}, capped


def test_environment_file_is_in_step() -> None:
    listed = read_yaml("environment.yml")["dependencies"]
    conda = {re.split(r"[><=]", line)[0]: line for line in listed if isinstance(line, str)}
    assert SpecifierSet(conda.pop("python").removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    conda = {name: line for name, line in conda.items() if name not in {"pip", "make"}}
    asked = {"jupyter", "jupyter-book", "pytorch", "transformers", "peft", "datasets", "seaborn", "ipywidgets"}
    assert asked <= conda.keys()  # by name, not by way of pip
    optional = {one.name: Requirement(str(one).partition(";")[0]) for one in EXTRAS}
    named = {name: optional[name] for name in ("jupyter", "ipywidgets", "jupyter-book")}
    wanted = {str(requirement) for requirement in [*REQUIREMENTS, *named.values()]}
    assert {str(Requirement(line.replace("pytorch", "torch"))) for line in conda.values()} == wanted
    (pip,) = (entry["pip"] for entry in listed if isinstance(entry, dict))
    quantised = "bitsandbytes>=0.48; sys_platform == 'linux'"
    assert pip == [quantised, "-e .[notebook,book,test]"] and quantised in PROJECT["optional-dependencies"]["test"]


def test_nothing_that_colab_has_in_an_older_kind_is_required() -> None:
    """Its own notebook stack must stay as it is: replacing it crashes kernels."""
    names = {requirement.name for requirement in REQUIREMENTS}
    assert not names & {"jupyter", "jupyterlab", "notebook", "ipywidgets", "ipykernel", "ipython"}


def test_constraints_fit_the_requirements() -> None:
    pins = constraints()
    for requirement in REQUIREMENTS + EXTRAS:
        version = pins.get(requirement.name.lower().replace("_", "-"))
        assert version, f"{requirement.name} has no tested version"
        assert requirement.specifier.contains(version), f"{requirement} does not admit the tested {version}"
    assert pins["torch"] == "2.13.0"
    assert pins["jupyter-book"] == "1.0.4.post1"
    assert pins["sphinx-book-theme"] == "1.1.4"
    assert not [name for name in pins if name.startswith(("nvidia-", "triton", "cuda-"))]
    assert not [version for version in pins.values() if "+" in version]


def test_commit_hooks_use_the_tested_versions() -> None:
    revisions = {repo["repo"].rsplit("/", 1)[1]: repo["rev"] for repo in read_yaml(".pre-commit-config.yaml")["repos"]}
    pins = constraints()
    assert revisions == {"ruff-pre-commit": f"v{pins['ruff']}", "nbstripout": pins["nbstripout"]}


# Addresses, licences, versions


def test_one_repository_address() -> None:
    address = PROJECT["urls"]["Repository"]
    slug = address.removeprefix("https://github.com/")
    own = re.escape(slug.partition("/")[2])
    assert read_yaml("_config.yml")["repository"]["url"] == address
    assert read_yaml("CITATION.cff")["repository-code"] == address
    other = []
    for name, text in tracked_text().items():
        found = re.findall(rf"(?:github|githubusercontent)\.com/([\w.-]+/(?:routedk-lite|{own}))\b", text)
        found += re.findall(r"mybinder\.org/v2/gh/([\w.-]+/[\w.-]+)", text)
        found += re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/", text)
        other += [f"{name}: {one}" for one in found if one != slug]
    assert not other


def test_workflows_cover_every_python_and_publish_what_make_builds() -> None:
    tests, book = (read_yaml(f".github/workflows/{name}.yml")["jobs"] for name in ("tests", "book"))
    offered = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert tests["linux"]["strategy"]["matrix"]["python"] == offered
    commands = [step.get("run", "") for job in (tests["linux"], book["build"]) for step in job["steps"]]
    assert [line.split()[:2] for line in commands if line] == [["make", "test"], ["make", "book"]]
    assert {"macos", "wheel"} <= tests.keys() and book["deploy"]["needs"] == "build"


def test_issue_templates_ask_for_what_the_doctor_says() -> None:
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")):
        fields = {field["id"]: field for field in read_yaml(str(path.relative_to(ROOT)))["body"]}
        assert "routedk doctor" in fields["doctor"]["attributes"]["label"], path.name
        assert fields["doctor"]["validations"]["required"]


def test_one_version_and_licence() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == routedk_lite.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["LICENSE", "book/vendor/mathjax/LICENSE"])
def test_licence_is_the_unchanged_apache_text(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    text = text.replace("Copyright 2026 The RouteDK-lite authors", "Copyright [yyyy] [name of copyright owner]")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_own_licence_names_the_owner() -> None:
    assert "Copyright 2026 The RouteDK-lite authors" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_mathjax_is_the_published_file() -> None:
    digest = hashlib.sha256((ROOT / "book/vendor/mathjax/tex-svg.js").read_bytes()).hexdigest()
    assert digest == "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"  # MathJax 3.2.2


def test_axe_is_the_published_file() -> None:
    digest = hashlib.sha256((ROOT / "tests/vendor/axe/axe.min.js").read_bytes()).hexdigest()
    # axe-core 4.14.1, MPL 2.0, used by tests alone
    assert digest == "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


def test_every_cited_paper_is_in_the_citation_file() -> None:
    bibliography = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    titles = {re.sub(r"[{}]", "", title) for title in re.findall(r"^  title\s+= \{(.+)\},$", bibliography, re.M)}
    cited = {reference["title"] for reference in read_yaml("CITATION.cff")["references"]}
    assert len(titles) >= 7
    assert titles == cited


def test_every_cited_paper_is_cited_somewhere() -> None:
    keys = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.M))
    pages = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    cited = {key.strip() for keys in re.findall(r"\{cite[:\w]*\}`([^`]+)`", pages) for key in keys.split(",")}
    assert cited == keys


def test_spelling() -> None:
    names = [
        name for name in tracked_text() if name.endswith((".py", ".md", ".ipynb", ".yml", ".toml", ".cff", ".bib"))
    ]
    found = subprocess.run([sys.executable, "-m", "codespell_lib", *names], cwd=ROOT, capture_output=True, text=True)
    assert not found.returncode, found.stdout


def test_nothing_names_the_place_where_it_was_written() -> None:
    # Put together from pieces, so that this file does not name them either.
    hosts = ["pypi" + ".org", "python" + "hosted", "download." + "pytorch"]
    pattern = re.compile(r"(?<![\w.])/(?:work|root|workspace)/|" + "|".join(map(re.escape, hosts)))
    found = [
        f"{name}: {match[0]}"
        for name, text in tracked_text().items()
        for match in pattern.finditer(text)
        if name != ".ci/run"
    ]
    assert not found


# The package


@pytest.mark.parametrize("module", [".config", ".data.domains", ".data.metrics", ".data.prompts", ".teacher.knowledge"])
def test_import_stays_light(module: str) -> None:
    heavy = ["torch", "transformers", "peft", "datasets", "seaborn"]
    code = f"import sys, routedk_lite{module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


# Commands


def test_every_make_target_has_a_line_of_help() -> None:
    require(shutil.which("make"), "needs make")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    help_text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    helped = re.findall(r"^  make (\S+) +\S.*$", help_text, re.MULTILINE)
    assert sorted(helped) == sorted(phony.split())


def test_ci_script_can_run() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize(("value", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_require_fails_in_ci_and_skips_elsewhere(value: str, outcome: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", value)
    require(True, "nothing happens")
    with pytest.raises(outcome, match="a reason"):
        require(False, "a reason")


# Chapters and prose


def test_every_chapter_is_in_the_contents_and_in_the_readme() -> None:
    contents = [chapter["file"] for part in read_yaml("_toc.yml")["parts"] for chapter in part["chapters"]]
    assert [name for name in contents if name.startswith("notebooks/")] == [
        short(path).removesuffix(".ipynb") for path in NOTEBOOKS
    ]
    missing = [name for name in contents if not list(ROOT.glob(f"{name}.*"))]
    assert not missing
    slug = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"({short(path)})" in readme
        assert f"https://colab.research.google.com/github/{slug}/blob/main/{short(path)}" in readme


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_notebook_is_clean_and_plain(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count is not None]
    myst = re.findall(r"^(?:`{3,}|:{3,})\s*\{.*|\{[a-z:-]+\}`[^`]+`|^\([\w-]+\)=$", markdown(path), re.MULTILINE)
    assert not myst, "MyST shows as source text in Colab; keep such pages in book/"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_chapter_has_every_section(path: Path) -> None:
    text = markdown(path)
    wanted = [
        "**You will be able to**", "**You need**", "**Time:**", "### What the paper says, what we see", "## Exercises",
        "Hint</summary>", "## Summary", "**Pitfalls.**", "**Next:**",
    ]  # fmt: skip
    assert not [section for section in wanted if section not in text]
    assert re.search(r"\*not run\*|T4: not needed|computed estimate", text), "say what is known of a T4"


def test_all_chapters_begin_with_one_set_up_cell() -> None:
    cells = set()
    for path in NOTEBOOKS:
        first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        assert first.metadata.get("tags") == ["hide-input"]
        cells.add(first.source)
    (cell,) = cells
    assert f'"git+{PROJECT["urls"]["Repository"]}"' in cell and "--no-deps" in cell


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_relative_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", markdown(path), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    local = [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert not [target for target in local if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=short)
def test_prose_quotes_no_measured_number(path: Path) -> None:
    # What stands between markers is computed from the records.
    typed = re.sub(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", "", markdown(path), flags=re.DOTALL)
    assert not bare_decimals(typed), "let a cell print the number, or put it in a table with its source"


def test_bare_decimals_are_told_from_other_dots() -> None:
    assert bare_decimals("F1 was .443, then 0.51; a gain of 2.5 % and 1.5 times.") == [
        ".443",
        "0.51",
        "2.5",
        "1.5",
    ]
    allowed = "Python 3.11, arXiv 2508.17250, torch 2.13.0, `lr=0.1`, $T = 0.7$, Apache License 2.0, step 3. Then"
    assert bare_decimals(f"{allowed}\n\n| a | .25 |\n|---|---|\n\n```\nx = 0.5\n```\n$$\n0.5\n$$\n") == []


def test_what_the_package_reads_from_the_checkout_ships_with_it():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "routedk_lite").rglob("*.py")]
    wanted = {name for text in sources for name in re.findall(r'own_file\("([^"]+)"\)', text)}
    assert wanted >= {"results", "claims.yml"}
    assert build["wheel"]["force-include"] == {
        name: f"routedk_lite/assets/{name}" for name in sorted(wanted, reverse=True)
    }
    assert {f"/{name}" for name in wanted} <= set(build["sdist"]["include"])
