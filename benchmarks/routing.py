"""What routing and voting cost: against one plain LoRA, no LoRA, PEFT's X-LoRA, and plain sampling.

Adapters are random (rank 16 on all linear modules, so that nothing needs training first); every measurement runs in
a process of its own, on the same length-sorted batches, and generation writes a fixed number of tokens, so that all
models do equal work. `--expert` names a trained adapter: voting is then measured on answers as they are, which agree
more than those of a random model. Results are printed and kept in `results/benchmarks/routing-<profile>.json`.

    python benchmarks/routing.py --profile smol --growth --expert runs/smol/electronic/base-seed0
    python benchmarks/routing.py --only 'step: [or]*' --rounds 3

X-LoRA's generation takes half an hour by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

import torch

from routedk_lite.answers.decoding import greedy_answers, sample_bundles
from routedk_lite.config import get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.data.prompts import prompt_batches
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.fusion.base import Fusion
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.report.tables import text_table
from routedk_lite.student.backbone import load_student
from routedk_lite.student.batches import AnswerCollator
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import load_expert
from routedk_lite.student.peak import peak_memory_mb
from routedk_lite.student.training import answer_loss
from routedk_lite.study.machine import surroundings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "benchmarks"
NEW_TOKENS = 12
TRAIN_SESSIONS, MICRO_BATCH = 32, 4
RANK, EXPERTS, VOTERS = 16, 3, 8


class Bench:
    """A student, sessions, and random adapters in a temporary folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.profile = get_profile(args.profile)
        self.student = load_student(self.profile)
        self.args = args
        self.folder = Path(tempfile.mkdtemp())
        self.train = load_domain(args.domain, "train").sessions[:TRAIN_SESSIONS]
        test = load_domain(args.domain, "test").sessions  # sorted by length: take short and long ones alike
        self.test = test[:: max(1, len(test) // args.sessions)][: args.sessions]

    def adapters(self, n: int, rank: int = RANK) -> list[Path]:
        """PEFT folders of n random adapters."""
        from peft import LoraConfig, get_peft_model

        folders = []
        for seed in range(n):
            torch.manual_seed(seed)
            lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(self.student.model, lora, autocast_adapter_dtype=False)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.01)
            folders.append(self.folder / f"expert{seed}")
            model.save_pretrained(folders[-1])
            model.unload()
        return folders

    def plain(self) -> torch.nn.Module:
        """One LoRA that learns, as experts are trained here."""
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(self.student.model, lora, autocast_adapter_dtype=False)

    def routed(self, n: int = EXPERTS, rank: int = RANK, fusion: Fusion | None = None) -> RoutedModel:
        """Several experts and a fusion, by default a router that learns."""
        return RoutedModel(self.student.model, self.adapters(n, rank), fusion or Dynamic())

    def xlora(self) -> torch.nn.Module:
        """PEFT's mixture of the same adapters, with its defaults."""
        from peft import XLoraConfig, get_peft_model

        adapters = {str(i): str(folder) for i, folder in enumerate(self.adapters(EXPERTS))}
        config = XLoraConfig(
            task_type="CAUSAL_LM", hidden_size=self.student.model.config.hidden_size, adapters=adapters
        )
        self.student.model.config.use_cache = False  # X-LoRA insists
        model = get_peft_model(self.student.model, config)
        return model.to(next(self.student.model.parameters()).dtype)

    def batches(self) -> list[dict[str, torch.Tensor]]:
        """The training sessions in length-sorted micro-batches."""
        prompt, tokenizer = self.profile.prompt, self.student.tokenizer
        rows = [encode_example(s, tokenizer, prompt, max_length=2048)._asdict() for s in self.train]
        rows.sort(key=lambda row: len(row["input_ids"]))
        collate = AnswerCollator(tokenizer.pad_token_id, prompt_mask=True)
        return [collate(rows[i : i + MICRO_BATCH]) for i in range(0, len(rows), MICRO_BATCH)]

    def step(self, model: torch.nn.Module, *, mask: bool) -> float:
        """Seconds of forward and backward over all micro-batches."""
        batches = self.batches()
        model.train()

        def run(batch: dict[str, torch.Tensor]) -> None:
            inputs = dict(batch)
            labels = inputs.pop("labels")
            if not mask:
                inputs.pop("prompt_mask")
            answer_loss(model(**inputs, use_cache=False), labels).backward()

        run(batches[0])  # the first pass allocates
        started = time.perf_counter()
        for batch in batches:
            run(batch)
        return time.perf_counter() - started

    def generate(self, model: torch.nn.Module, **options: Any) -> float:
        """Seconds of `generate` over all test sessions in length-sorted batches."""
        tokenizer = self.student.tokenizer
        batches = list(prompt_batches(self.test, tokenizer, self.profile.prompt, self.profile.decode.batch_size))
        model.eval()
        started = time.perf_counter()
        for rows in batches:
            batch = tokenizer.pad({"input_ids": [ids for _, _, ids in rows]}, return_tensors="pt")
            with torch.inference_mode():
                model.generate(**batch, **options)
        return time.perf_counter() - started

    def write(self, model: torch.nn.Module, *, cache: bool = True) -> float:
        """Seconds to write `NEW_TOKENS` tokens for every test session."""
        fixed = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
        return self.generate(model, do_sample=False, use_cache=cache, **fixed)

    def answering(self) -> torch.nn.Module:
        """What votes: a trained expert if one is named."""
        return load_expert(self.student, self.args.expert) if self.args.expert else self.routed()

    def greedy(self) -> float:
        """Seconds of one greedy answer per session."""
        model, started = self.answering(), time.perf_counter()
        options = {"prompt": self.profile.prompt, "decode": self.profile.decode, "progress": False}
        greedy_answers(model, self.student.tokenizer, self.test, **options)
        return time.perf_counter() - started

    def vote(self, n: int = VOTERS) -> float:
        """Seconds of n sampled answers per session from a shared prefill."""
        model, started = self.answering(), time.perf_counter()
        options = {"prompt": self.profile.prompt, "decode": self.profile.decode, "progress": False}
        sample_bundles(model, self.student.tokenizer, self.test, n, **options)
        return time.perf_counter() - started

    def plain_sampling(self, n: int = VOTERS) -> float:
        """The same with `generate(num_return_sequences=n)`."""
        limit = self.profile.decode.max_new_tokens
        sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "num_return_sequences": n}
        return self.generate(self.answering(), max_new_tokens=limit, **sampled)


MEASUREMENTS: dict[str, Callable[[Bench], float]] = {
    "step: one PEFT LoRA": lambda b: b.step(b.plain(), mask=False),
    "step: routed, 3 experts": lambda b: b.step(b.routed(), mask=True),
    "step: X-LoRA, 3 experts": lambda b: b.step(b.xlora(), mask=False),
    "generate: base model": lambda b: b.write(b.student.model),
    "generate: routed, 3 experts": lambda b: b.write(b.routed()),
    "generate: X-LoRA, 3 experts": lambda b: b.write(b.xlora(), cache=False),
    "answers: greedy": lambda b: b.greedy(),
    "answers: vote of 8, shared prefill": lambda b: b.vote(),
    "answers: 8 by num_return_sequences": lambda b: b.plain_sampling(),
}
GROWTH: dict[str, Callable[[Bench], float]] = {
    **{f"experts {n}": lambda b, n=n: b.step(b.routed(n), mask=True) for n in (1, 2, 3, 4, 8)},
    **{f"rank {r}": lambda b, r=r: b.step(b.routed(rank=r), mask=True) for r in (4, 8, 16, 32, 64)},
    **{f"voters {n}": lambda b, n=n: b.vote(n) for n in (1, 2, 4, 8, 16, 32)},
}
RATIOS = [
    ("routed step / one LoRA step", "step: routed, 3 experts", "step: one PEFT LoRA", "≤ 0.75"),
    ("X-LoRA step / routed step", "step: X-LoRA, 3 experts", "step: routed, 3 experts", "≥ 2"),
    ("routed generation / base model", "generate: routed, 3 experts", "generate: base model", "≤ 1.35"),
    ("X-LoRA generation / routed", "generate: X-LoRA, 3 experts", "generate: routed, 3 experts", "≥ 3"),
    ("vote of 8 / greedy", "answers: vote of 8, shared prefill", "answers: greedy", "≤ 1.5"),
    ("num_return_sequences / vote of 8", "answers: 8 by num_return_sequences",
     "answers: vote of 8, shared prefill", "≥ 2"),
]  # fmt: skip


def measure(name: str, args: argparse.Namespace, script: str = __file__) -> dict[str, float]:
    """One measurement in a process of its own."""
    words = [sys.executable, script, "--one", name, "--profile", args.profile]
    words += ["--sessions", str(args.sessions), "--domain", args.domain]
    if args.expert:
        words += ["--expert", args.expert]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found['seconds']:.1f} s, {found['peak_mb']:.0f} MB", file=sys.stderr)
    return found


def ratios(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """What is to be reached, and the ratio of every round; of what was measured."""
    found = []
    for what, one, other, reach in RATIOS:
        if one not in runs or other not in runs:
            continue
        pairs = zip(runs[one], runs[other], strict=False)  # the last round may not be over
        found.append({"what": what, "reach": reach, "rounds": [a["seconds"] / b["seconds"] for a, b in pairs]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="qwen")
    parser.add_argument("--sessions", type=int, default=180, help="test sessions to answer")
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--expert", help="folder of a trained adapter, for voting")
    parser.add_argument("--growth", action="store_true", help="how time and memory grow, as well")
    parser.add_argument("--only", help="measure again what fits this pattern, keep the rest: 'step:*'")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        seconds = (MEASUREMENTS | GROWTH)[args.one](Bench(args))
        print(json.dumps({"seconds": seconds, "peak_mb": peak_memory_mb()}))
        return
    known = MEASUREMENTS | (GROWTH if args.growth or args.only else {})
    wanted = [name for name in known if fnmatch(name, args.only or "*")]
    output = FOLDER / f"routing-{args.profile}.json"
    known_before = args.only and output.exists()
    kept = json.loads(output.read_text(encoding="utf-8")) if known_before else {"runs": {}, "trained_expert": False}
    votes_wanted, votes_kept = (
        any(name.startswith(("answers", "voters")) for name in n) for n in (wanted, kept["runs"])
    )
    if votes_wanted and votes_kept and bool(args.expert) != kept["trained_expert"]:
        parser.error("--expert: the votes that are kept were measured otherwise; name the same expert, or none")
    runs: dict[str, list[dict[str, float]]] = kept["runs"] | {name: [] for name in wanted}
    about = surroundings() | {"domain": args.domain, "sessions": args.sessions}
    about["trained_expert"] = bool(args.expert) or kept["trained_expert"]
    for _ in range(args.rounds):
        for name in wanted:
            runs[name].append(measure(name, args))
            # Now and again, so that an interruption loses one measurement at most.
            write_json(output, {**about, "runs": runs, "ratios": ratios(runs)})
    rows = [
        [name, f"{median(r['seconds'] for r in found):.1f}", f"{median(r['peak_mb'] for r in found):.0f}"]
        for name, found in runs.items()
    ]
    title = f"{args.profile}, {args.sessions} test sessions of {args.domain}"
    print(text_table(["what", "seconds", "peak MB"], rows, title=title))
    rows = [
        [r["what"], r["reach"], f"{median(r['rounds']):.2f}", f"{min(r['rounds']):.2f}-{max(r['rounds']):.2f}"]
        for r in ratios(runs)
    ]
    print(text_table(["ratio", "reach", "median", "range"], rows))


if __name__ == "__main__":
    raise SystemExit(ended(main))
