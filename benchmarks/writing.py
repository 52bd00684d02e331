"""How well a small student writes its answers after one epoch: one setting changed at a time.

Trains an adapter on the training sessions of a domain, with the settings of the recipe's search on written answers, and
measures it on the validation sessions: nats per item below a reader of no titles, greedy answers, a majority and the
consensus of 16 samples. Results are printed and kept in `results/recipe/writing.json`, from which the book's recipe
draws its table. A trial that was stopped goes on from its last checkpoint when it is asked for again.

    python benchmarks/writing.py one-line one-r8 one-r64 one-2e3 one-titles
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from routedk_lite.analysis.diagnostics import ContentFree, answer_nats
from routedk_lite.answers.answering import profile_reader
from routedk_lite.answers.consensus import Consensus
from routedk_lite.answers.decoding import Answer, Samples, sample_bundles
from routedk_lite.answers.voting import vote_all
from routedk_lite.config import PairConfig, Profile, get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.data.formats import ECHO_WORDS, FORMATS, AnswerFormat, get_format, letters_of
from routedk_lite.data.metrics import evaluate
from routedk_lite.data.prompts import shorten
from routedk_lite.data.sessions import Bundle, Session
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.student.backbone import load_student
from routedk_lite.student.experts import load_expert, train_expert
from routedk_lite.study.machine import surroundings

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "results" / "recipe" / "writing.json"
WORK = ROOT / "runs" / "writing"
TRIALS: dict[str, dict[str, Any]] = {
    "one-line": {},
    "one-r8": {"r": 8, "lora_alpha": 16},
    "one-r64": {"r": 64, "lora_alpha": 128},
    "one-2e3": {"learning_rate": 2e-3},
    "one-nopair": {"pair_weight": 0.0},
    "one-titles": {"fmt": "titles"},
    "one-numbers": {"fmt": "compact"},
}
"""What a trial changes."""
N = 16
"""Samples of each session."""
WEIGHTS = (0.0, 0.5, 1.0, 2.0)
"""What an exact match may be worth to the consensus."""


# --- bundles as lists of short titles ---

BETWEEN = " | "


def short_title(title: str) -> str:
    """The first words of a title, without the mark that stands between two of them."""
    return " ".join(title.replace("|", " ").split()[:ECHO_WORDS])


def write_titles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    """One line for each bundle, its products by the first words of their titles."""
    return "\n".join(BETWEEN.join(short_title(titles[n - 1]) for n in bundle) for bundle in bundles)


def read_titles(text: str, titles: Sequence[str]) -> tuple[Bundle, ...]:
    """The bundles of such an answer. Of products that begin alike, the first that its line has not named is meant; a
    piece that begins no title is left out."""
    found = []
    for line in text.splitlines():
        bundle: set[int] = set()
        for piece in line.split(BETWEEN.strip()):
            named = [n for n, title in enumerate(titles, 1) if short_title(title) == piece.strip() and n not in bundle]
            bundle.update(named[:1])
        if len(bundle) > 1:
            found.append(frozenset(bundle))
    return tuple(dict.fromkeys(found))


TITLES = AnswerFormat(
    instruction="Group the products that are wanted together: one line per group, the first words of each title.",
    task="",
    title_pieces=FORMATS["compact"].title_pieces,
    write_bundles=write_titles,
    read_groups=lambda text, n_items: (),  # `read_titles` needs the titles
)
"""A format of this trial only: it cannot be read without the session's titles."""


# --- a reader of no titles, for answers in letters ---


class LetterCounts:
    """How letters follow each other in training answers, whatever the products are.

    The next letter is a known bundle by its rank, a new one, or none. Its chance depends on the number of items, the
    place, and the sizes of the bundles so far; rare contexts fall back on coarser ones. Each answer is counted in ten
    orders of its items.
    """

    def __init__(self, sessions: Iterable[Session], *, weight: float = 5.0, n_orders: int = 10) -> None:
        self.weight = weight
        self.counts: dict[tuple, Counter[str]] = defaultdict(Counter)
        chance = random.Random(0)
        for session in sessions:
            for _ in range(n_orders):
                shown = session.permuted(chance.sample(range(len(session)), len(session)))
                for contexts, _, event in self._events(shown):
                    for context in contexts:
                        self.counts[context][event] += 1

    def nats(self, session: Session) -> float:
        """Negative log-likelihood of a session's letters, in the order of its items."""
        total = 0.0
        for contexts, n_events, event in self._events(session):
            p = 1 / n_events
            for context in contexts:
                counts = self.counts[context]
                p = (counts[event] + self.weight * p) / (counts.total() + self.weight)
            total -= math.log(p)
        return total

    @staticmethod
    def _events(session: Session) -> Iterator[tuple[list[tuple], int, str]]:
        """For each letter: its contexts, the coarsest first, how many letters may stand there, and which one does."""
        n, sizes, none = len(session), [], 0
        nowhere = letters_of((), n)[0]
        for place, letter in enumerate(letters_of(session.bundles, n)):
            state = (tuple(sizes), none)
            contexts = [(place > 0, len(sizes)), (n, place, len(sizes)), (n, place, *state)]
            n_events = len(sizes) + 2
            if letter < len(sizes):
                event = f"bundle {letter}"
                sizes[letter] += 1
            elif letter == nowhere:
                event, none = "none", none + 1
            else:
                event = "new"
                sizes.append(1)
            yield contexts, n_events, event


# --- a trial ---


def changed_profile(name: str, base: Profile, epochs: int) -> Profile:
    """The settings of the search, with what one trial changes."""
    changed = dict(TRIALS[name])
    fmt = changed.pop("fmt", "letters")
    train = {"learning_rate": 5e-4, "epochs": epochs, "joint_epochs": 0, **changed}
    at = "lines" if get_format(fmt).slots else "titles"
    return replace(
        base,
        train=replace(base.train, **train),
        prompt=replace(base.prompt, fmt=fmt),
        pairs=PairConfig(layer=base.pairs.layer, at=at),
        decode=replace(base.decode, max_new_tokens=64 if fmt != "titles" else 200),
    )


def settings_row(profile: Profile) -> dict[str, Any]:
    """What the page's data keep of a trial's settings."""
    train, prompt = profile.train, profile.prompt
    return {
        "fmt": prompt.fmt, "lr": train.learning_rate, "r": train.r, "first": train.first_layer, "epochs": train.epochs,
        "words": prompt.max_title_words, "pl": profile.pairs.layer, "pw": train.pair_weight,
        "mb": train.micro_batch_size, "acc": train.accumulation_steps, "n": N, "program": "benchmarks/writing.py",
    }  # fmt: skip


def trial(
    name: str, base: Profile, domain: str, seed: int, epochs: int, limit: int | None, work: Path
) -> dict[str, Any]:
    """Train, in a folder of `work`, and measure."""
    profile = changed_profile(name, base, epochs)
    student = load_student(profile)
    train, validation = (load_domain(domain, split).sessions[:limit] for split in ("train", "validation"))
    reader = profile_reader(profile, student, train) if profile.train.pair_weight else None
    folder = work / profile.name / domain / f"{name}-seed{seed}"
    made = train_expert(student, train, folder, config=profile.train, prompt=profile.prompt, reader=reader, seed=seed)
    model = load_expert(student, made.folder)
    options = {"prompt": profile.prompt, "batch_size": profile.train.micro_batch_size}
    nats = answer_nats(student, validation, model=model, **options)
    known = LetterCounts(train) if profile.prompt.fmt == "letters" else ContentFree(train)
    samples = sample_bundles(model, student.tokenizer, validation, N, prompt=profile.prompt, decode=profile.decode)
    if profile.prompt.fmt == "titles":
        samples = list(with_titles(samples, validation, profile))
    n_items = sum(map(len, validation))
    last = {
        "epoch": epochs,
        "minutes": round(made.seconds / 60, 1),
        "domain": domain,
        "nats": round(float(nats.sum()) / n_items, 3),
        "content_free": round(sum(map(known.nats, validation)) / n_items, 3),
        **scores(samples, validation),
    }
    about = {
        **settings_row(profile),
        "domains": domain,
        "seed": seed,
        "student": profile.name,
        "dtype": student.info.dtype,
    }
    return {"trial": name, "settings": about, "before": 0, "own": epochs, "finished": limit is None,
            "epochs": [last], **surroundings()}  # fmt: skip


def with_titles(samples: Iterable[Samples], sessions: Iterable[Session], profile: Profile) -> Iterator[Samples]:
    """Samples with the bundles that their short titles name."""
    titles = {s.id: shorten(s.titles, profile.prompt.max_title_words) for s in sessions}

    def read(answer: Answer) -> Answer:
        return answer._replace(bundles=read_titles(answer.text, titles[answer.id]), problems=())

    for one in samples:
        yield Samples(one.id, read(one.greedy), tuple(map(read, one.drawn)))


def scores(samples: Sequence[Samples], sessions: Sequence[Session]) -> dict[str, Any]:
    """Strict F1 and exact match of every way to choose."""
    size = {s.id: len(s) for s in sessions}
    chosen = {
        "greedy": {one.id: one.greedy.bundles for one in samples},
        "majority": {id_: vote.bundles for id_, vote in vote_all(samples).items()},
        "single": {one.id: one.drawn[0].bundles for one in samples},
    }
    whole = sum(set(map(len, one.greedy.bundles)) == {size[one.id]} for one in samples)
    consensus = {str(w).removesuffix(".0"): Consensus(exact_weight=w) for w in WEIGHTS}
    found = {name: _pair(answers, sessions) for name, answers in chosen.items()}
    by_weight = {w: _pair({s.id: c(s.drawn, s.greedy) for s in samples}, sessions) for w, c in consensus.items()}
    return {**found, "greedy_whole": [whole, len(samples)], "consensus": by_weight}


def _pair(answers: dict[int, Sequence[Bundle]], sessions: Sequence[Session]) -> list[float]:
    found = evaluate(answers, sessions, "strict")
    return [round(found.f1, 3), round(found.exact_match, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="+", choices=list(TRIALS))
    parser.add_argument("--profile", default="qwen")
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit", type=int, help="sessions of each split, for a try")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--work", type=Path, default=WORK, help="where adapters and checkpoints are kept")
    args = parser.parse_args()
    FORMATS["titles"] = TITLES
    base = get_profile(args.profile)
    for name in args.trials:
        row = trial(name, base, args.domain, args.seed, args.epochs, args.limit, args.work)
        print(json.dumps(row), file=sys.stderr)
        known = json.loads(args.output.read_text(encoding="utf-8"))
        known["trials"] = [r for r in known["trials"] if r["trial"] != name] + [row]
        write_json(args.output, known)


if __name__ == "__main__":
    raise SystemExit(ended(main))
