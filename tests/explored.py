"""Records of a study that no model was needed for, and a browser that looks: how the router explorer is tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import numpy as np

from routedk_lite.answers.consensus import Consensus
from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.answers.voting import vote_all
from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.config import VoteConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.prompts import format_answer
from routedk_lite.data.sessions import Session
from routedk_lite.study.explored import VOTE_OR_CONSENSUS, VOTE_OR_ONE, choose_sessions, distinct_answers
from routedk_lite.study.measurements import write_measurement
from routedk_lite.study.mixtures import setting_text, settings
from routedk_lite.study.records import write_record

EXPERTS = ("base-seed0", "rules-seed0", "reasoning-seed0")
HASHES = {name: name[0] * 64 for name in EXPERTS}
STUDENT = {"id": "made-up", "dtype": "float32"}


def guess(session: Session, rng: np.random.Generator) -> list[frozenset[int]]:
    """An answer that is right, cut small, beside the point, or empty."""
    kind = rng.choice(["right", "cut", "wild", "empty", "mixed"], p=[0.35, 0.2, 0.2, 0.05, 0.2])
    wild = frozenset(int(i) for i in 1 + rng.permutation(len(session))[:2])
    small = [frozenset(sorted(b)[:2]) for b in session.bundles]
    answers = {"right": list(session.bundles), "cut": small, "wild": [wild], "empty": [], "mixed": [*small[:1], wild]}
    return answers[kind]


def sample(session: Session, rng: np.random.Generator, n: int) -> Samples:
    """Answers of which many are equal, some unreadable, and some tie."""
    options = [format_answer(guess(session, rng)) for _ in range(4)]
    drawn = []
    for _ in range(n):
        text = str(rng.choice(options))
        bundles = [frozenset(map(int, line.split())) for line in text.splitlines()]
        log_prob = round(-float(rng.choice([0.25, 0.5, rng.random()])), 5)
        drawn.append(Answer.of_bundles(session.id, bundles)._replace(text=text, log_prob=log_prob))
    return Samples(session.id, drawn[0], tuple(drawn))


def make_results(
    folder: Path, *, n_layers: int = 5, profile: str = "toy", seed: int = 0, consensus: bool = False
) -> Path:
    """Write all records and the measurement that an explorer of the toy shop is made from.

    Args:
        folder: gets them.
        n_layers: routed ones.
        profile: whose they claim to be.
        seed: of chance.
        consensus: whether every answer is one of many samples, which the run keeps.
    """
    rng, test = np.random.default_rng(seed), load_domain("toyshop", "test")
    common: dict[str, Any] = {"profile": profile, "config": {}, "config_hash": "0", "wall_seconds": 1.0}
    logits = rng.normal(0, 2, (len(test), n_layers, 3))
    logits[:, 0] *= 0.01  # nearly uniform
    logits[:, -1, 0] += 12  # nearly one-hot
    alpha = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    answers = {}

    def record(name: str, run: str, found: dict | None = None, **more: Any) -> None:
        found = found or {s.id: guess(s, rng) for s in test}
        answers[name] = found
        made = [Answer.of_bundles(i, b) for i, b in found.items()]
        with patch("routedk_lite.study.records.INTERVAL_OF", ()):  # not looked at, and they take most of the time
            write_record(folder, test=test, run=f"{run}-seed0", seed=0, answers=made, student=STUDENT, **common, **more)

    for name in ("base", "rules", "reasoning"):
        record(name, name)
    for name in ("average", "ties", "static"):
        record(name, f"fusion-{name}")
    rows = [{"id": s.id, "alpha": np.round(a, 4).tolist()} for s, a in zip(test, alpha, strict=True)]
    analysis = {"experts": list(EXPERTS), "layers": list(range(n_layers))}
    drawn = [sample(s, rng, VoteConfig().n) for s in test]
    votes = {id_: list(vote.bundles) for id_, vote in vote_all(drawn).items()}
    samples = {"samples": [s.to_json() for s in drawn]}
    agreed = {s.id: list(Consensus()(s.drawn, s.greedy)) for s in drawn} if consensus else None
    kept = {"alpha": rows, **(samples if consensus else {})}
    record("dynamic", "fusion-dynamic", agreed, analysis=analysis, attachments=kept, adapter_sha256=HASHES)
    if consensus:
        answers["vote"] = votes
    else:
        record("vote", "voting-dynamic", votes, attachments=samples)
    chosen = choose_sessions(test, answers, alpha, 12, VOTE_OR_CONSENSUS if consensus else VOTE_OR_ONE)
    logs = logits - logits.max(-1, keepdims=True)
    place = {s.id: i for i, s in enumerate(test)}
    grid = settings(3)
    sessions = []
    for id_, why in chosen.items():
        options = [guess(test.by_id[id_], rng) for _ in range(5)]
        found = [options[rng.integers(5)] for _ in grid]
        log_alpha = np.round(logs[place[id_]], 4).tolist()
        sessions.append({"id": id_, "why": why, "log_alpha": log_alpha, **distinct_answers(found)})
    write_measurement(
        folder,
        train=load_domain("toyshop", "train"),
        name="explorer-seed0",
        seed=0,
        student=STUDENT,
        adapter_sha256=HASHES,
        values={
            "experts": list(EXPERTS),
            "layers": list(range(n_layers)),
            "settings": [setting_text(s) for s in grid],
            "static_log_alpha": [[0.0, -0.5, -math.log(4)]] * n_layers,
            "same_as_recorded": [len(chosen), len(chosen)],
            "sessions": sessions,
        },
        **common,
    )
    return folder


# Looking at it


@contextmanager
def visiting(browser: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """Opens explorers as one page; at the end no request has left the disk, and the console is silent."""
    contexts, trouble = [], []

    def note_request(request: Any) -> None:
        if urlsplit(request.url).scheme not in {"file", "data"}:
            trouble.append(f"request to {request.url}")

    def note_message(message: Any) -> None:
        if message.type in ("error", "warning"):
            trouble.append(f"console: {message.text}")

    def open_page(
        *explorers: RouterExplorer, width: int = 1280, scheme: str = "light", link: str = "", **options: Any
    ) -> Any:
        path = explorers[0].save(folder / f"page{len(contexts)}.html")
        more = "".join(one._repr_html_() for one in explorers[1:])
        path.write_text(path.read_text(encoding="utf-8").replace("</main>", f"{more}</main>"), encoding="utf-8")
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", note_request)
        tab.on("console", note_message)
        tab.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
        tab.goto(path.as_uri() + link)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble


def part(tab: Any, name: str, place: int = 0) -> Any:
    """One of the explorer's elements."""
    return tab.locator(f".rdkx >> nth={place}").locator(f'[data-x="{name}"]')


def now(tab: Any, place: int = 0) -> str:
    """What the page says about the present settings."""
    return part(tab, "now", place).inner_text()


def shown_alpha(tab: Any) -> np.ndarray:
    """α as the page shows it.

    Shapes:
        → (L, E)
    """
    rows = part(tab, "heat").locator("tbody tr").all()
    return np.array([[float(c) for c in row.locator("td").all_inner_texts()] for row in reversed(rows)])


def drag(tab: Any, name: str, value: float, nth: int = 0) -> None:
    """Set a slider as a hand would."""
    slider = part(tab, name).nth(nth)
    slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value)
