"""One command sets the project's address, everywhere and back again."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from conftest import ROOT, load_script, require

publish = load_script("publish_as")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A checkout of what is tracked here, results and vendored code left out."""
    require((ROOT / ".git").exists(), "needs a checkout with git")
    root = tmp_path_factory.mktemp("checkout")
    for path in publish.tracked(ROOT):
        name = path.relative_to(ROOT)
        if name.parts[0] == "results" or "vendor" in name.parts:
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "--all", "--force"], cwd=root, check=True)
    return root


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in publish.tracked(root)}


def test_every_address_is_set_and_can_be_set_back(copied):
    before, old = contents(copied), publish.current(copied)
    changed = publish.publish_as(copied, "octocat/My.Book")
    assert {"pyproject.toml", "README.md", "CITATION.cff", "_config.yml"} <= set(changed)
    assert sum(name.startswith("notebooks/") for name in changed) >= 10
    text = "\n".join(content.decode("utf-8", "replace") for content in contents(copied).values())
    for host in publish.HOSTS:
        assert host + old not in text
    assert publish.current(copied) == "octocat/My.Book"
    assert publish.publish_as(copied, "octocat/My.Book") == []
    publish.publish_as(copied, old)
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("git+https://github.com/a/b", "git+https://github.com/C/d"),
        ("see https://github.com/a/b.", "see https://github.com/C/d."),
        ("https://github.com/a/b.git and (https://github.com/a/b/issues)", None),
        ("https://a.github.io/b/intro.html", "https://c.github.io/d/intro.html"),
        ("https://github.com/a/bb https://github.com/aa/b https://github.com/a/b-c pip install b", "same"),
    ],
)
def test_only_whole_addresses_are_touched(text, expected):
    found = publish.rewritten(text, "a/b", "C/d")
    assert found == (text if expected == "same" else expected or text.replace("a/b", "C/d"))


@pytest.mark.parametrize("address", ["octocat", "octocat/", "https://github.com/a/b", "a b/c"])
def test_what_is_no_address_is_refused(address, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["publish_as.py", address])
    with pytest.raises(SystemExit):
        publish.main()
    assert "is not OWNER/NAME" in capsys.readouterr().err
