"""A folder of a teacher's knowledge: what a live teacher says, written in the form of what ships with the package.

Patterns stand in the same folder. No teacher is asked for them: they are counted in training bundles.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .. import __version__
from ..checked import COUNT, check_number
from ..data.domains import load_domain
from ..data.own import domain_name, own_folder
from ..data.sessions import DataError
from ..files import asset, atomic_write
from .answers import Prediction
from .calls import json_text
from .distillation import Distilled, carry_out, what_to_do
from .kinds import fit_kinds
from .knowledge import Reasoning, check_knowledge, load_knowledge, load_rules
from .own import how_to_distil
from .patterns import MAX_SIZE, MIN_SUPPORT, MINER, Pattern, mine_patterns
from .plans import REFLECTIONS, Plan, answers_plan, reasoning_plan, rules_plan
from .teachers import Teacher, TeacherError

FILES = {"rules": "rules.json", "reasoning": "reasoning.jsonl", "answers": "teacher_test.jsonl"}
"""Kinds of knowledge that a teacher can be asked for, and the file that each is written to."""
PATTERNS_FILE = "patterns.json"
"""Stands beside them, and is read by `patterns.load_patterns`."""


def folder_plan(kind: str, domain: str, folder: str | Path, *, limit: int | None = None) -> Plan:
    """The plan for one kind of knowledge of one domain.

    Args:
        kind: a key of `FILES`.
        domain: a domain of `data.DOMAINS`, or a folder of sessions.
        folder: where the result is to go, and where reasoning finds its rules.
        limit: only so many sessions; `None` is all, or `REFLECTIONS` for rules.

    Raises:
        ValueError: unknown kind, or a limit below 1.
        DataError: reasoning without rules.
    """
    _check_kind(kind)
    if limit is not None:
        check_number("limit", limit, COUNT)
    if kind == "answers":
        return answers_plan(load_domain(domain, "test"), limit=limit)
    train = load_domain(domain, "train")
    if kind == "rules":
        return rules_plan(train, limit=limit or REFLECTIONS)
    if not (Path(folder) / FILES["rules"]).exists():
        raise DataError(f"{folder} holds no {FILES['rules']}: distil rules into it first")
    return reasoning_plan(train, load_rules(domain_name(domain), folder)[0], limit=limit)


def distill(
    teacher: Teacher,
    kind: str,
    domain: str,
    folder: str | Path,
    *,
    limit: int | None = None,
    progress: bool = True,
) -> Distilled:
    """Distil one kind of knowledge of one domain into a folder that `knowledge.load_knowledge` reads.

    Args:
        teacher: whom to ask.
        kind, domain, folder, limit: as for `folder_plan`.
        progress: show the teacher's progress bars.

    Raises:
        ValueError, DataError: as `folder_plan`; or the folder holds the same from another teacher, or reasoning that
            rests on other rules.
        TeacherError: the teacher failed, or wrote nothing that can be read; what it answered is kept.
    """
    plan = folder_plan(kind, domain, folder, limit=limit)
    split = load_domain(domain, "test" if kind == "answers" else "train")
    path = Path(folder) / FILES[kind]
    _refuse_other(path, teacher.name)
    _refuse_unwritable(path)
    done = carry_out(plan, teacher, progress=progress)
    if not done.found:
        raise TeacherError(
            f"{teacher.name}: none of {done.asked} answers can be read even when asked for twice, so nothing is "
            f"written. {what_to_do(done.unreadable, done.unanswered)}"
        )
    served = sorted(getattr(teacher, "served", {}))
    _refuse_other(path, teacher.name, served)
    provenance = {
        "teacher": teacher.name,
        "recorded": time.strftime("%Y-%m"),
        "sampling": teacher.sampling,
        **({"served": "; ".join(served)} if served else {}),
        "prompts": f"routedk_lite {__version__}, teaching",
        "data": f"{split.name}, sha256 {split.sha256}",
        "split": split.split,
        "unreadable": f"{len(done.unreadable)} of {done.asked}",
    } | ({"items": "explicit"} if kind == "reasoning" else {})
    write_knowledge(folder, kind, split.name, done.found, provenance)
    if kind == "reasoning":
        check_knowledge(load_knowledge(domain, folder), split, complete=False)
    return done


def export_recorded(kind: str, domain: str, folder: str | Path, *, limit: int | None = None) -> Path:
    """Write what ships with the package, or what the toy shop knows, where one's own would go.

    Args:
        kind, domain, folder: as for `folder_plan`.
        limit: only so many sessions; rules were recorded as a whole.

    Raises:
        ValueError: unknown kind or domain, a limit below 1 or on rules, or answers of the toy shop, which has none.
        DataError: the folder holds the same from another teacher.
    """
    _check_kind(kind)
    if limit is not None and (kind == "rules" or limit < 1):
        raise ValueError(f"limit = {limit!r}: must be 1 or more, and recorded rules come as a whole: leave it out")
    if (own := own_folder(domain)) is not None:
        raise ValueError(f"{own}: nobody has recorded a teacher on your own sessions: {how_to_distil(own)}")
    knowledge = load_knowledge(domain)
    path = Path(folder) / FILES[kind]
    _refuse_other(path, knowledge.provenance["teacher"])
    if domain != "toyshop":
        source = asset("teacher", domain, FILES[kind]).read_text(encoding="utf-8").splitlines(keepends=True)
        with atomic_write(path) as file:
            file.writelines(source[: limit and limit + 1])  # the first line is about provenance
        return path
    if kind == "answers":
        raise ValueError("the toy shop has no answers beside its annotated bundles: ask a live teacher")
    found = knowledge.rules if kind == "rules" else dict(islice(knowledge.reasoning.items(), limit))
    return write_knowledge(folder, kind, domain, found, knowledge.provenance)


def write_knowledge(
    folder: str | Path, kind: str, domain: str, found: Mapping[Any, Any], provenance: Mapping[str, str]
) -> Path:
    """Write one file of a teacher's folder, in the form of the recorded ones, whole or not at all.

    Args:
        folder: where it goes.
        kind: a key of `FILES`.
        domain: whose knowledge it is.
        found: as in `Distilled`.
        provenance: who said it, when, and what for.

    Raises:
        DataError: rules that differ from those which the folder's reasoning rests on.
    """
    path = Path(folder) / FILES[kind]
    head = {"provenance": dict(provenance), "domain": domain}
    if kind == "rules":
        others = Path(folder) / FILES["reasoning"]
        if others.exists() and path.exists() and load_rules(domain, folder)[0] != found:
            raise DataError(f"{others} rests on other rules than these: choose another folder, or remove both files")
        rules = [rule._asdict() for rule in found.values()]
        lines = [json_text({**head, "rules": rules}, indent=1)]
    else:
        rows = [head, *(_row(id_, value) for id_, value in found.items())]
        lines = [json_text(row) for row in rows]
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def write_patterns(domain: str, folder: str | Path, *, limit: int | None = None) -> tuple[Path, list[Pattern]]:
    """Mine the patterns of a domain's training bundles into a folder, beside a teacher's knowledge.

    Args:
        domain: a domain of `data.DOMAINS`, or a folder of sessions.
        folder: where the file goes.
        limit: only so many training sessions, the first; `None` is all. Kinds are learned from the same sessions.

    Returns:
        The file and what was found.

    Raises:
        ValueError: a limit below 1.
        DataError: the folder holds patterns from elsewhere, or the sessions hold none.
    """
    if limit is not None:
        check_number("limit", limit, COUNT)
    path = Path(folder) / PATTERNS_FILE
    _refuse_other(path, MINER)
    train = load_domain(domain, "train")
    sessions = train.sessions[:limit]
    extractor = fit_kinds(sessions)
    found = mine_patterns(sessions, extractor)
    if not found:
        raise DataError(
            f"{train.name}: no kinds of products stand together in {MIN_SUPPORT} bundles of {len(sessions)} sessions, "
            "so nothing is written; take more sessions"
        )
    covered = extractor.coverage(title for session in sessions for title in session.titles)
    provenance = {
        "teacher": MINER,
        "recorded": time.strftime("%Y-%m"),
        "settings": f"support of {MIN_SUPPORT} bundles or more, up to {MAX_SIZE} products",
        "code": f"routedk_lite {__version__}, kinds and patterns",
        "data": f"{train.name}, sha256 {train.sha256}",
        "split": train.split,
        "sessions": f"{len(sessions)} of {len(train)}",
        "titles with a kind": f"{covered:.1%}",
    }
    rows = [{**p._asdict(), "confidence": round(p.confidence, 5), "claim": p.claim} for p in found]
    table = {"provenance": provenance, "domain": train.name, "patterns": rows}
    with atomic_write(path) as file:
        file.write(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return path, found


def _row(id_: int, value: Reasoning | Prediction) -> dict[str, Any]:
    if isinstance(value, Reasoning):
        return {"id": id_, "reasoning": value.text, "rules": list(value.rules), "noisy": value.noisy}
    return {"id": id_, "bundles": [sorted(b) for b in value.bundles], "intents": list(value.intents)}


def _refuse_other(path: Path, teacher: str, served: Sequence[str] = ()) -> None:
    """Nobody's knowledge is written over another teacher's, nor over that of another model of the same name."""
    if not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
        before = json.loads(text if path.suffix == ".json" else text.partition("\n")[0])["provenance"]
        name, others = before["teacher"], before.get("served", "").split("; ")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} does not say whose it is: choose another folder, or remove it") from error
    if name != teacher:
        raise DataError(f"{path} is from {name!r}, not {teacher!r}: choose another folder, or remove it")
    if served and any(others) and not set(served) & set(others):
        raise DataError(
            f"{path} is from {teacher!r} when that was {'; '.join(others)!r}, and now it is {'; '.join(served)!r}: "
            "choose another folder, or remove it"
        )


def _refuse_unwritable(path: Path) -> None:
    """Find out before anybody is asked whether the answers can go there; nothing is made."""
    there = next(folder for folder in path.absolute().parents if os.path.exists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"{path} cannot be written: {there} is no folder that you may write to; choose another one")


def _check_kind(kind: str) -> None:
    if kind == "patterns":
        raise ValueError("kind = 'patterns': no teacher is asked for these, they are mined: use write_patterns")
    if kind not in FILES:
        raise ValueError(f"kind = {kind!r}: choose one of {', '.join(FILES)}")
