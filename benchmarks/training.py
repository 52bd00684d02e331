"""How fast and in how much memory one expert trains: ours against a plain Trainer with PEFT.

Both train the same adapter (rank 16 on all linear modules) on the same tokens of the same sessions. *Plain* is what one
writes first: bfloat16 student, PEFT's float32 adapters, sessions in random order, micro-batches of eight padded on the
right, logits and loss over all positions' vocabulary. *Ours* is `experts.train_expert`. The two alternate, each in a
process of its own so that peak memory is its own, and tokens count without padding. Results are printed and kept in
`results/benchmarks/training-<profile>.json`.

    python benchmarks/training.py --profile qwen --rounds 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from routedk_lite.config import Profile, TrainConfig, get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.report.tables import text_table
from routedk_lite.student.backbone import load_student
from routedk_lite.student.batches import IGNORE
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import train_expert
from routedk_lite.student.peak import peak_memory_mb
from routedk_lite.study.machine import surroundings

FOLDER = Path(__file__).resolve().parent.parent / "results" / "benchmarks"


def ours(profile: Profile, n_sessions: int, domain: str) -> tuple[int, float]:
    """Train with the package; give tokens and seconds."""
    student = load_student(profile)
    sessions = load_domain(domain, "train").sessions[:n_sessions]
    with tempfile.TemporaryDirectory() as folder:
        config = same_training(profile.train)
        result = train_expert(
            student, sessions, Path(folder, "x"), config=config, prompt=profile.prompt, progress=False
        )
    return round(result.seconds * result.tokens_per_second), result.seconds


def same_training(config: TrainConfig) -> TrainConfig:
    """What both train: the answer's loss alone, rank 16 on all linear modules of all layers, sessions as they are."""
    return replace(config, epochs=1, r=16, lora_alpha=32, first_layer=1, permute=False, pair_weight=0.0)


def plain(profile: Profile, n_sessions: int, domain: str) -> tuple[int, float]:
    """Train with nothing but Trainer and PEFT; give tokens and seconds."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed

    profile = replace(profile, student=replace(profile.student, attention="sdpa"))
    student, config = load_student(profile), same_training(profile.train)
    student.tokenizer.padding_side = "right"
    rows = []
    for session in load_domain(domain, "train").sessions[:n_sessions]:
        example = encode_example(session, student.tokenizer, profile.prompt, max_length=config.max_length)
        ids, learned = example.input_ids, set(example.learned or range(example.n_prompt, len(example.input_ids)))
        labels = [token if place in learned else IGNORE for place, token in enumerate(ids)]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    set_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", r=config.r, lora_alpha=config.lora_alpha,
                      lora_dropout=config.lora_dropout, target_modules=config.target_modules)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=get_peft_model(student.model, lora),
            args=TrainingArguments(
                output_dir=folder, num_train_epochs=1, per_device_train_batch_size=8, gradient_accumulation_steps=2,
                learning_rate=config.learning_rate, use_cpu=not torch.cuda.is_available(), save_strategy="no",
                report_to="none", disable_tqdm=True, logging_strategy="no",
            ),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(student.tokenizer, padding=True),
        )  # fmt: skip
        started = time.perf_counter()
        trainer.train()
    return sum(len(row["input_ids"]) for row in rows), time.perf_counter() - started


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Run one of the two in a process of its own."""
    words = [sys.executable, __file__, "--one", name, "--profile", args.profile]
    words += ["--sessions", str(args.sessions), "--domain", args.domain]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="qwen")
    parser.add_argument("--sessions", type=int, default=96)
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["ours", "plain"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        tokens, seconds = {"ours": ours, "plain": plain}[args.one](
            get_profile(args.profile), args.sessions, args.domain
        )
        print(json.dumps({"tokens_per_second": tokens / seconds, "peak_mb": peak_memory_mb()}))
        return
    runs = {"plain": [], "ours": []}
    for _ in range(args.rounds):
        for name, found in runs.items():
            found.append(measure(name, args))
            print(name, found[-1], file=sys.stderr)
    rows = []
    for name, rounds in runs.items():
        speed = [run["tokens_per_second"] for run in rounds]
        memory = median(run["peak_mb"] for run in rounds)
        rows.append([name, f"{median(speed):.0f}", f"{min(speed):.0f}-{max(speed):.0f}", f"{memory:.0f}"])
    pairs = zip(runs["ours"], runs["plain"], strict=True)
    ratios = [one["tokens_per_second"] / other["tokens_per_second"] for one, other in pairs]
    title = f"{args.profile}, {args.sessions} sessions of {args.domain}, {args.rounds} rounds"
    print(text_table(["training", "tokens/s", "range", "peak MB"], rows, title=title))
    print(f"ours / plain, pair by pair: median {median(ratios):.2f}, lowest {min(ratios):.2f}")
    write_json(
        FOLDER / f"training-{args.profile}.json",
        {**surroundings(), "domain": args.domain, "sessions": args.sessions, "runs": runs},
    )


if __name__ == "__main__":
    raise SystemExit(ended(main))
