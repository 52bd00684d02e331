"""What the students of the `t4` and `paper` profiles need on a GPU: memory and time, held against what was planned.

The weights are random and of the published shapes, so that nothing is downloaded: memory and time do not depend on
what weights say. Texts are real sessions, cut into tokens by SmolLM2's tokenizer. The T4 profile computes in float32,
as on a T4, whatever the card; each profile may take no more memory than the card that it is meant for has (less what
the plan reserves for the driver), and stops where that is not enough. Each has a process of its own. Results are
printed and kept in `results/benchmarks/gpu.json`.

    python benchmarks/gpu.py --profiles t4 paper

On a machine with a copy of the tree, say what that is: ROUTEDK_COMMIT=$(git describe --always --abbrev=40
--exclude='*' --dirty=+), as it is printed where the tree comes from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from routedk_lite.answers.answering import pairs_of, profile_reader
from routedk_lite.answers.decoding import greedy_answers, sample_bundles
from routedk_lite.config import PROFILES, KnowledgeConfig, Profile, get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import Session
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import train_fusion
from routedk_lite.report.tables import text_table
from routedk_lite.student.backbone import Student, load_student, student_files
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import train_expert
from routedk_lite.student.memory import RESERVE_GB, architecture, memory_plan
from routedk_lite.study.machine import surroundings
from routedk_lite.teacher.knowledge import load_knowledge

OUTPUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "gpu.json"
MEANT_FOR_GB = {"t4": 12.0, "paper": 24.0}
DTYPE = {"t4": "float32", "paper": "bfloat16"}
MICRO_BATCHES, VOTERS, NEW_TOKENS = (2, 4, 8), 8, 24
TOLD = KnowledgeConfig(kind="both")


def random_student(profile: Profile, folder: Path, layers: int | None) -> Profile:
    """The profile with a student of random weights in `folder`, drawn on the device and stored as a hub stores one."""
    config = architecture(profile.student)
    if layers:
        settings = config.to_dict() | {"num_hidden_layers": layers}
        settings.pop("layer_types", None)  # one entry per layer
        config = AutoConfig.for_model(**settings)
    tokenizer = AutoTokenizer.from_pretrained(student_files(get_profile("smol").student)[0])
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    dtype = DTYPE[profile.name] if torch.cuda.is_available() else "auto"
    student = replace(profile.student, id=str(folder), dtype=dtype)
    return replace(profile, student=student)


class Bench:
    """One profile on this card: every measurement gives seconds, and the most memory that was in use."""

    def __init__(self, name: str, n_sessions: int, domain: str, layers: int | None, folder: Path) -> None:
        self.profile = random_student(get_profile(name), folder / "student", layers)
        if layers:
            self.profile = replace(self.profile, pairs=replace(self.profile.pairs, layer=layers))
        self.folder, self.domain = folder, domain
        self.found: dict[str, Any] = {"limit_gb": MEANT_FOR_GB[name]}
        if torch.cuda.is_available():
            card = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction((MEANT_FOR_GB[name] - RESERVE_GB) * 1e9 / card)
        self.student: Student = self.measured("load", lambda: load_student(self.profile))
        self.knowledge = load_knowledge(domain)
        sessions = list(load_domain(domain, "train"))
        self.longest: list[Session] = sorted(sessions, key=self.told_tokens)[-n_sessions:]
        self.train = sessions[:n_sessions]
        self.test = list(load_domain(domain, "test"))[:n_sessions]
        self.reader = profile_reader(self.profile, self.student, self.train)

    def measured(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work; note seconds and gigabytes (10⁹ bytes), in use and taken from the card."""
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        result = work()
        if on_gpu:
            torch.cuda.synchronize()
        row = {"seconds": time.perf_counter() - started}
        if on_gpu:
            row |= {
                "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
                "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
            }
        self.found[name] = row
        print(f"{self.profile.name} {name}: {json.dumps(row)}", file=sys.stderr, flush=True)
        return result

    def told_tokens(self, session: Session) -> int:
        """Tokens of a training text with rules and reasoning, the longest that is trained on."""
        profile = self.profile
        about = {"max_length": profile.train.max_length, "knowledge": self.knowledge, "told": TOLD}
        return len(encode_example(session, self.student.tokenizer, profile.prompt, **about).input_ids)

    def expert(self, sessions: list[Session], name: str, told: KnowledgeConfig | None = None, **changed: Any) -> Path:
        """Train an expert for one epoch, as the profile does where nothing is changed."""
        folder, profile = self.folder / name, self.profile
        config = replace(profile.train, epochs=1, **changed)
        result = self.measured(name, lambda: train_expert(
            self.student, sessions, folder, config=config, prompt=profile.prompt, reader=self.reader, progress=False,
            knowledge=self.knowledge if told else None, told=told,
        ))  # fmt: skip
        row = self.found[name]
        row |= {"sessions": len(sessions), "batch": config.micro_batch_size}
        row["tokens_per_second"] = result.tokens_per_second
        row |= {"losses": [h["loss"] for h in result.history if "loss" in h], "seconds": result.seconds}
        return folder

    def router(self, experts: list[Path]) -> RoutedModel:
        """Train a router over the experts for one epoch."""
        profile = self.profile
        model = RoutedModel(self.student.model, experts, Dynamic(normalize=profile.router.normalize))
        config = replace(profile.router, epochs=1)
        result = self.measured("router", lambda: train_fusion(
            model, self.student, self.train, self.folder / "routed", config=config, prompt=profile.prompt,
            reader=self.reader, progress=False,
        ))  # fmt: skip
        row = self.found["router"]
        row |= {"sessions": len(self.train), "batch": config.micro_batch_size}
        row |= {"losses": [h["loss"] for h in result.history if "loss" in h]}
        return model

    def answers(self, model: RoutedModel) -> None:
        """Written answers, votes and pairs of the routed model; random weights write to the limit, which is fixed."""
        profile, tokenizer = self.profile, self.student.tokenizer
        decode = replace(profile.decode, max_new_tokens=NEW_TOKENS)
        options = {"prompt": profile.prompt, "decode": decode, "progress": False}
        self.measured("greedy", lambda: greedy_answers(model, tokenizer, self.test, **options))
        self.measured("votes", lambda: sample_bundles(model, tokenizer, self.test, VOTERS, **options))
        read = pairs_of(model, profile, self.student, self.reader, progress=False)
        self.measured("pairs", lambda: read(self.test))
        for name in ("greedy", "votes", "pairs"):
            self.found[name] |= {"sessions": len(self.test), "batch": decode.batch_size}

    def run(self) -> dict[str, Any]:
        """All measurements of one profile."""
        published = replace(self.profile.student, id=PROFILES[self.profile.name].student.id)
        longest = self.told_tokens(self.longest[-1])
        plan = memory_plan(replace(self.profile, student=published), longest)
        self.found |= {"longest_tokens": longest, "plan_gb": {**plan._asdict(), "total": plan.total}}
        first = second = self.expert(self.longest, "expert, longest texts", TOLD)
        for size in MICRO_BATCHES:  # the same sixteen texts a step
            name = f"expert, micro-batches of {size}"
            try:
                second = self.expert(self.train, name, micro_batch_size=size, accumulation_steps=16 // size)
            except torch.OutOfMemoryError:
                self.found[name] = {"out_of_memory": True}
        self.answers(self.router([first, second, first]))
        return self.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="+", choices=list(MEANT_FOR_GB), default=list(MEANT_FOR_GB))
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--layers", type=int, help="a student of so few layers, to try this script out")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--one", choices=list(MEANT_FOR_GB), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            found = Bench(args.one, args.sessions, args.domain, args.layers, Path(folder)).run()
        print(json.dumps(found))
        return
    found = {}
    for name in args.profiles:
        words = [sys.executable, __file__, "--one", name, "--sessions", str(args.sessions), "--domain", args.domain]
        words += ["--layers", str(args.layers)] if args.layers else []
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        # Now and again, so that a failure loses one profile at most.
        write_json(args.output, {**surroundings(), "domain": args.domain, "profiles": found})
    rows = []
    for name, measured in found.items():
        for what, row in measured.items():
            if isinstance(row, dict) and "seconds" in row:
                n = row.get("sessions")
                each = f"{row['seconds'] / n:.2f}" if n else "–"
                rows.append([name, what, f"{row['seconds']:.1f}", each, f"{row.get('peak_gb', 0):.2f}"])
        rows.append([name, "planned, without the reserve", "", "", f"{measured['plan_gb']['total'] - RESERVE_GB:.2f}"])
    print(text_table(["profile", "what", "seconds", "per session", "peak GB"], rows))


if __name__ == "__main__":
    raise SystemExit(ended(main))
