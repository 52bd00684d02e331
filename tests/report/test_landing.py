"""README, first page and results show what the records give, and cannot go out of date unseen."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
from conftest import ROOT, require
from synthetic import stand_in, write_run

from routedk_lite.report import comparing, scores
from routedk_lite.report.landing import FIGURE, PAGES, five_rows, landing, results_rows, write_landing
from routedk_lite.report.scores import scored
from routedk_lite.report.strip import richest_domain, strip_figure, strip_key
from routedk_lite.report.tables import domains_table, fill_marked, short_table
from routedk_lite.study.records import load_all

# --- the committed pages ------------------------------------------------------------------------------------------


def test_pages_and_figure_show_what_the_records_give(mirror):
    require((ROOT / PAGES[0]).exists(), "the README comes with the repository only")
    made = landing(load_all(ROOT / "results"))
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert fill_marked(text, made.parts) == text, f"{page} is out of date, run: python scripts/fill_readme.py"
    assert strip_key(made.drawn) in (ROOT / "book" / FIGURE).read_text(encoding="utf-8"), (
        "python scripts/fill_readme.py"
    )


@pytest.mark.parametrize("page", PAGES[:2])
def test_findings_five_rows_and_the_plot_stand_before_everything_else(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [text.index(what) for what in ("explorer", "<!-- findings:begin", "<!-- five:begin", "findings.svg")]
    assert found == sorted(found)
    assert text.index("## What was found") == text.index("\n## ") + 1
    five = text.split("<!-- five:begin -->")[1].split("<!-- five:end -->")[0]
    assert len(re.findall(r"^\| (?!strict F1)", five, re.MULTILINE)) == 7
    assert text.count("not run") <= 4


# --- from records that were made up -------------------------------------------------------------------------------


@pytest.fixture
def records(monkeypatch, tmp_path):
    """A few runs of two domains."""
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    monkeypatch.setattr(scores, "_sessions", stand_in)
    for domain in ("electronic", "food"):
        write_run(tmp_path, "floor-pairs", 0.1, domain=domain)
        write_run(tmp_path, "floor-random", 0.2, domain=domain)
        write_run(tmp_path, "decode-minilm", 0.6, domain=domain)
        for seed in range(2):
            write_run(tmp_path, f"base-seed{seed}", 0.5, domain=domain, seed=seed)
    write_run(tmp_path, "rules-seed0", 0.6, seed=0)
    write_run(tmp_path, "fusion-dynamic-seed0", 0.7, seed=0)
    return load_all(tmp_path)


def test_five_rows_with_a_dash_and_one_note_for_what_was_not_run(records):
    found = scored(records)
    table = five_rows(found)
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in table.splitlines() if line.startswith("| ")}
    assert len(rows) == 7
    best = max((s for s in found if s.run.startswith("floor") and s.domain == "food"), key=lambda s: s.f1.estimate)
    assert rows["best floor by F1, reads no title"][2].startswith(f" {best.f1.estimate:.3f} [")
    assert [cell.strip() for cell in rows["RouteDK: three experts, one router"][1:]] == ["–", "–"]
    assert [cell.strip() for cell in rows["teacher"]] == ["–", "–", "–"]
    assert table.count("–: not run.") == 1 and "not run" not in "".join(map("".join, rows.values()))


def test_who_tries_the_command_on_the_toy_shop_changes_no_page(records):
    tried = replace(records[-1], profile="toy", domain="toyshop")
    assert landing([*records, tried]).parts == landing(records).parts


def test_the_papers_choice_stands_below_the_router_where_samples_are_kept(records, tmp_path):
    assert "by majority" not in five_rows(scored(records)), "nobody kept samples"
    majority = {"metrics": {"strict": {"f1": 0.25, "exact_match": 0.125}}}
    write_run(tmp_path, "fusion-dynamic-seed0", 0.5, domain="food", seed=0, analysis={"majority": majority})
    rows = five_rows(scored(load_all(tmp_path))).splitlines()
    (place,) = [k for k, row in enumerate(rows) if row.startswith("| RouteDK")]
    assert rows[place + 1].startswith("| the same, by majority as in the paper | – | – | 0.250<br>0.125 |")


def test_published_metrics_stand_in_the_results(records):
    lines = results_rows(scored(records)).splitlines()
    header, first = ([cell.strip() for cell in lines[k].strip("|").split("|")] for k in (0, 2))
    assert header[7:] == ["P", "R", "C", "answers"]
    best = max((s for s in scored(records) if s.domain == "electronic"), key=lambda s: s.f1.estimate)
    official = best.records[0].metrics["official"]
    assert first[7:] == [f"{official[name]:.3f}" for name in ("precision", "recall", "coverage", "valid_rate")]


def test_results_name_runs_in_words_the_best_first_toys_last(records):
    table = results_rows(scored(records)).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(cells) == 10
    assert cells[0][:4] == ["fused: router (RouteDK)", "smol", "electronic", "1"]
    assert [row[3] for row in cells if row[0] == "base expert"] == ["2", "2"]
    assert {row[3] for row in cells if row[0].startswith("floor")} == {"–"}
    for domain in ("electronic", "food"):
        f1 = [float(row[4]) for row in cells if row[2] == domain]
        assert f1 == sorted(f1, reverse=True)


def test_without_records_the_pages_say_so(monkeypatch):
    made = landing([])
    assert made.profile == "" and made.drawn == []
    assert {made.parts[name] for name in ("findings", "five", "drawn")} == {"Nothing is recorded yet."}


def test_the_pages_are_written_alike_every_time(records, tmp_path):
    (tmp_path / "book" / "assets").mkdir(parents=True)
    for page in PAGES:
        shutil.copy(ROOT / page, tmp_path / page)
    written = write_landing(tmp_path, records)
    before = [path.read_bytes() for path in written]
    assert "In strict F1 the small student beats" in before[0].decode()
    assert [path.read_bytes() for path in write_landing(tmp_path, records)] == before


# --- the strip plot -----------------------------------------------------------------------------------------------


def test_every_student_is_a_dot_and_every_rival_a_labelled_line(records):
    drawn = [s for s in scored(records) if s.domain == "electronic"]
    (axes,) = strip_figure(drawn).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(dots) == sum(bool(s.group) for s in drawn) == 3
    texts = [text.get_text() for text in axes.texts]
    assert {"expert told nothing", "told rules", "experts fused", "base", "router"} <= set(texts)
    lines = [s for s in drawn if not s.group]
    assert all(f"{s.words}, {s.f1.estimate:.3f}" in texts for s in lines)


def test_labels_of_lines_rise_to_the_right(records):
    (axes,) = strip_figure([s for s in scored(records) if s.domain == "food"]).axes
    labels = [text for text in axes.texts if re.search(r", 0\.\d{3}$", text.get_text())]
    figure = axes.figure
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in sorted(labels, key=lambda text: text.get_position()[0])]
    assert len(boxes) == 3
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


def test_what_scores_far_below_all_lines_is_named_at_the_edge(records, tmp_path):
    low = scored([write_run(tmp_path / "more", "zero-shot", -1.0, student={"id": "s"}), *records])
    drawn = [s for s in low if s.domain == "electronic"]
    bottom = min(s.f1.estimate for s in drawn if not s.group)
    (shot,) = [s for s in drawn if s.run == "zero-shot"]
    shot = shot._replace(f1=shot.f1._replace(estimate=0.0, low=0.0, high=0.0))
    texts = [t.get_text() for t in strip_figure([s for s in drawn if s.run != "zero-shot"] + [shot]).axes[0].texts]
    assert bottom > 0.05 and "◀ 0.000" in texts


def test_the_plot_shows_the_domain_with_the_most_runs_and_its_key_follows_the_numbers(records):
    found = scored(records)
    assert richest_domain(found) == "electronic" and richest_domain([]) == ""
    moved = [found[0]._replace(f1=found[0].f1._replace(high=0.99)), *found[1:]]
    assert strip_key(found) == strip_key(list(found)) != strip_key(moved)


# --- narrow tables ------------------------------------------------------------------------------------------------


def test_narrow_tables_show_one_number_with_its_interval():
    records = [r for r in load_all(ROOT / "results") if r.profile == "smol"]
    table = short_table(r for r in records if r.run.startswith("floor"))
    assert table.splitlines()[2] == "| run | strict F1 [95 %] | exact match |"
    assert len(re.findall(r"^\| floor", table, re.MULTILINE)) == sum(r.run.startswith("floor") for r in records)
    few = domains_table(records, {"base-seed0": "base expert", "floor-": "best floor", "none": "nobody"}).splitlines()
    assert few[0] == "| strict F1 [95 %] | electronic | clothing | food |" and len(few) == 5
    assert few[4] == "| nobody | – | – | – |"
    best = max(r.metrics["strict"]["f1"] for r in records if r.run.startswith("floor") and r.domain == "food")
    assert f"{best:.3f} [" in few[3]
