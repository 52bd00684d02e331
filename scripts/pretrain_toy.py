"""Make the toy student: a small Llama that knows the goods of the toy shop and can refer to items by number.

It reads listings of products and answers questions about them (what is item 3, which items are red, which fit item 3,
which share a kind), and it reads the facts of the catalogue. It is asked for one criterion at a time and never told
which of them make a bundle; it never sees a bundle, nor the cue after which bundles are asked for. That is what the
experts learn later. Listings of the toy shop's own splits are left out.

    python scripts/pretrain_toy.py --out routedk_lite/assets/toy_student --seed 0

At first an answer stands behind its question; in a short second phase numbers stand on lines of their own and the text
ends behind the last answer, so that every token of an answer is known, the closing one as well.

Interrupted runs continue from `<out>.checkpoint.pt`. Loss is taken on answers and facts only. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from routedk_lite.data import toyshop
from routedk_lite.data.toyproducts import ACTIVITIES, FITTING, KINDS, MODELS, Product, fits
from routedk_lite.files import atomic_folder, atomic_write, write_json

MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 256,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.03,
}
LEARNING_RATE, WARMUP, STEPS, DOCUMENTS_PER_STEP, QUESTIONS_PER_LISTING = 1.5e-3, 100, 12000, 16, 18
LINES_STEPS, LINES_RATE, LINES_QUESTIONS = 2500, 1e-3, 6  # the second phase
CHECK_EVERY = 100
GROW_EVERY = 150  # steps after which listings may be one item longer: looking up by number is learned on short ones
COPY_STEPS, COPIES = 600, 0.05  # listings that are only copied out of order: all at first, few later
WIDTHS = 48  # rows are padded to a multiple of this many tokens: the model is compiled once per width
IGNORE = -100
Document = list[tuple[str, bool]]  # pieces of text, and whether their loss counts
Groups = list[list[int]]
Answers = dict[str, str | Groups]  # question to words, or to groups of numbers


def written(answer: str | Groups, *, lines: bool) -> str:
    """An answer behind its question, or on lines of its own below it, which an empty line ends."""
    if isinstance(answer, str):
        return f" {answer}\n"
    groups = [", ".join(map(str, group)) for group in answer if group]
    if lines:
        return "\n" + "".join(f"{group}\n" for group in groups) + "\n"
    return f" {'; '.join(groups) or 'none'}\n"


def activities(product: Product) -> set[str]:
    return {activity for activity, kinds in ACTIVITIES.items() if product.kind in kinds}


# What can be asked of the other items beside item a, and whether item b is among the answers.
RELATIONS: dict[str, Callable[[Product, Product], bool]] = {
    "same kind": lambda a, b: a.kind == b.kind,
    "same maker": lambda a, b: a.maker == b.maker,
    "same line": lambda a, b: a.line == b.line,
    "same use": lambda a, b: a.kind != b.kind and bool(activities(a) & activities(b)),
    "same target": lambda a, b: bool(a.target) and a.target == b.target,
    "fits": lambda a, b: fits(b, a),
    "carries": lambda a, b: fits(a, b),
}


def recall(products: list[Product]) -> Answers:
    """From a number to the item."""
    answers = {}
    for n, product in enumerate(products, start=1):
        uses = " and ".join(sorted(activities(product)))
        answers[f"{n}."] = product.title
        answers[f"kind {n}."] = product.kind
        answers[f"use {n}."] = uses or (FITTING[product.kind][0]["name"] if product.target else "any day")
    return answers


def index(products: list[Product]) -> Answers:
    """From words and activities to numbers, as in the index of a book."""
    numbered = list(enumerate(products, start=1))
    words = sorted({word for product in products for word in product if word})
    found = {word: [n for n, p in numbered if word in p] for word in words}
    found |= {activity: [n for n, p in numbered if activity in activities(p)] for activity in ACTIVITIES}
    return {f"{word}:": [numbers] for word, numbers in found.items()}


def relation(products: list[Product]) -> Answers:
    """From a number to the numbers of related items."""
    numbered = list(enumerate(products, start=1))
    return {
        f"{words} {n}.": [[m for m, b in numbered if m != n and relates(a, b)]]
        for words, relates in RELATIONS.items()
        for n, a in numbered
    }


def grouping(products: list[Product]) -> Answers:
    """All groups of two or more by one criterion."""
    numbered = list(enumerate(products, start=1))
    devices = dict.fromkeys(product.line for product in products if product.maker in MODELS)
    keys: dict[str, Callable[[Product], Iterable[object]]] = {
        "kind": lambda p: [p.kind],
        "maker": lambda p: [p.maker],
        "colour": lambda p: [p.variant] if p.variant else [],
        "use": activities,
        "target": lambda p: [p.target] if p.target else [],
        "device": lambda p: [device for device in devices if p.line == device or fits(p, device)],
    }
    answers = {}
    for criterion, keys_of in keys.items():
        groups: dict[object, list[int]] = {}
        for n, product in numbered:
            for key in keys_of(product):
                groups.setdefault(key, []).append(n)
        several = sorted(group for group in groups.values() if len(group) > 1)
        answers[f"by {criterion}:"] = several
    return answers


SKILLS = {recall: 5, index: 4, relation: 6, grouping: 8}
"""What is asked, and how often relative to each other."""


def questions(products: list[Product], rng: random.Random, n: int) -> Answers:
    """Different questions about one listing; of those that nothing answers, a few."""
    pools = {}
    for skill in SKILLS:
        answers = list(skill(products).items())
        pools[skill] = [(q, a) for q, a in answers if (a and a != [[]]) or rng.random() < 0.1]
    chosen = {}
    for skill in rng.choices(list(SKILLS), list(SKILLS.values()), k=n):
        if pools[skill]:
            question, answer = pools[skill].pop(rng.randrange(len(pools[skill])))
            chosen[question] = answer
    return chosen


def facts() -> list[str]:
    """What the catalogue says, in sentences."""
    sentences = []
    for activity, kinds in ACTIVITIES.items():
        sentences += [f"One of the {KINDS[kind]['plural']} is good for {activity}." for kind in kinds]
    for model, device in MODELS.items():
        sentences.append(f"The {model} is a {device['name']}.")
        for kind, by in device["accessories"].items():
            if by != "model":
                sentences.append(f"The {model} takes a {kind} with {device['models'][model][by]}.")
    return sentences


def document(
    rng: random.Random,
    known: set[frozenset[str]],
    all_facts: list[str],
    longest: int,
    copies: float = COPIES,
    lines: bool = False,
) -> Document:
    """Some facts, or one listing of at most `longest` products that is copied out of order or asked about."""
    if rng.random() < 0.04:
        return [(f" {fact}\n", True) for fact in rng.sample(all_facts, 20)]
    products = toyshop.draw_products(rng)[:longest]
    while frozenset(product.title for product in products) in known:
        products = toyshop.draw_products(rng)[:longest]
    titles = {f"{n}.": product.title for n, product in enumerate(products, start=1)}
    listing = "\n".join(f"{number} {title}" for number, title in titles.items())
    n_questions = LINES_QUESTIONS if lines else QUESTIONS_PER_LISTING
    asked = titles if rng.random() < copies else questions(products, rng, n_questions)
    pieces: Document = [(f"Products:\n{listing}\n", False)]
    for question, answer in rng.sample(list(asked.items()), len(asked)):
        pieces += [(question, False), (written(answer, lines=lines), True)]
    if lines:
        pieces[-1] = (pieces[-1][0].rstrip("\n") + "</s>", True)
    return pieces


def build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one token for each word of the shop and each number.

    Bytes make every text of any alphabet encodable without loss.
    """
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\d+\.(?!\d)| ?\d+| ?[\p{L}\p{M}][\p{L}\p{M}'-]*| ?[^\s\p{L}\p{M}\d]+|\s")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(words, "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # never reached: merging ends when every word is whole
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def batch(documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of documents as right-padded rows, and labels where loss counts; no token looks ahead at padding.

    Shapes:
        both: (documents, width)
    """
    backend = tokenizer.backend_tokenizer
    rows = []
    for pieces in documents:
        row = [(tokenizer.bos_token_id, IGNORE)]
        encoded = backend.encode_batch([text for text, _ in pieces], add_special_tokens=False)
        for part, (_, counts) in zip(encoded, pieces, strict=True):
            row += [(token, token if counts else IGNORE) for token in part.ids]
        rows.append(row)
    width = -(-max(map(len, rows)) // WIDTHS) * WIDTHS
    padded = torch.tensor([row + [(tokenizer.pad_token_id, IGNORE)] * (width - len(row)) for row in rows])
    return padded[..., 0], padded[..., 1]


def new_model(vocabulary: int, ids: dict[str, int]) -> LlamaForCausalLM:
    """A random Llama whose attention starts by looking for equal tokens and copying them.

    With keys like queries and an output that undoes the values (after arXiv 2305.09828), looking up an item by its
    number is learned in a fraction of the steps.
    """
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **MODEL, **ids))
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.q_proj.weight.mul_(2.0)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)
    return model


def answer_loss(
    model: LlamaForCausalLM, body: torch.nn.Module, input_ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean loss where it counts; the vocabulary projection is computed only there. `body` is the compiled model."""
    hidden = body(input_ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    counts = targets != IGNORE
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[counts]).float(), targets[counts])


def pretrain(out: Path, *, seed: int, steps: int) -> None:
    """Train from the beginning or the last checkpoint, then write the student to `out`."""
    torch.manual_seed(seed)
    known = {frozenset(s.titles) for split in toyshop.SIZES for s in toyshop.load(split)}
    all_facts = facts()

    def documents(step: int) -> list[Document]:
        """By step, so that a continued run sees what an unbroken one sees."""
        rng = random.Random(f"{seed} {step}")
        longest = min(3 + step // GROW_EVERY, toyshop.MAX_ITEMS)
        copies = max(COPIES, 1 - step / COPY_STEPS)
        lines = steps <= step < 10**6
        return [document(rng, known, all_facts, longest, copies, lines) for _ in range(DOCUMENTS_PER_STEP)]

    tokenizer = build_tokenizer(
        ["".join(text for text, _ in pieces) for step in range(200) for pieces in documents(10**6 + step)]
    )
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model = new_model(len(tokenizer), ids)
    model.config._attn_implementation = "eager"  # compiled, it is the faster one at these lengths
    torch._dynamo.config.recompile_limit = 16
    body = torch.compile(model.model, dynamic=False)
    options = {"lr": LEARNING_RATE, "weight_decay": 0.01, "betas": (0.9, 0.98)}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    total = steps + LINES_STEPS
    state = {"step": 0, "seconds": 0.0, "curve": []}
    checkpoint = out.with_name(out.name + ".checkpoint.pt")
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    started, losses = time.perf_counter() - state["seconds"], []
    bar = tqdm(range(state["step"], total), initial=state["step"], total=total, unit="step", mininterval=5)
    for step in bar:
        if step == steps:
            optimizer = torch.optim.AdamW(model.parameters(), **options)
        peak, done, length = (LEARNING_RATE, step, steps) if step < steps else (LINES_RATE, step - steps, LINES_STEPS)
        rate = min((done + 1) / WARMUP, 0.5 + 0.5 * math.cos(math.pi * done / length))
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = answer_loss(model, body, *batch(documents(step), tokenizer))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == total:
            state["curve"].append([step + 1, round(sum(losses) / len(losses), 4)])
            bar.set_postfix(loss=state["curve"][-1][1])
            losses.clear()
            state.update(step=step + 1, seconds=time.perf_counter() - started)
            with atomic_write(checkpoint, "wb") as file:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, file)
    with atomic_folder(out, ours=("*.json", "*.jinja", "*.safetensors")) as folder:
        model.generation_config = GenerationConfig(do_sample=False, **ids)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        settings = {
            "model": MODEL,
            "steps": total,
            "steps_with_lines": LINES_STEPS,
            "documents_per_step": DOCUMENTS_PER_STEP,
        }
        settings |= {
            "questions_per_listing": QUESTIONS_PER_LISTING,
            "learning_rate": LEARNING_RATE,
            "warmup": WARMUP,
        }
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        versions |= {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
        record = {"command": "python scripts/pretrain_toy.py", "seed": seed, "configuration": settings}
        record |= {
            "parameters": model.num_parameters(),
            "seconds": round(state["seconds"]),
            "versions": versions,
        }
        write_json(folder / "pretraining.json", record | {"loss_curve": state["curve"]})
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the student")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps (default: %(default)s)")
    arguments = parser.parse_args()
    pretrain(arguments.out, seed=arguments.seed, steps=arguments.steps)
