"""The toy shop against a slow reader of titles that knows only the catalogue file; and the shipped student."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest
from conftest import load_script
from hypothesis import given, settings
from hypothesis import strategies as st

from routedk_lite.data import toyshop
from routedk_lite.data.domains import load_domain
from routedk_lite.data.parsing import parse_answer
from routedk_lite.data.prompts import build_prompt, encode_answer, encode_prompt, format_answer
from routedk_lite.data.sessions import SPLITS
from routedk_lite.data.toyproducts import KINDS, MODELS, draw_product
from routedk_lite.files import asset, sha256_json

CATALOGUE = json.loads(asset("toyshop", "catalogue.json").read_text(encoding="utf-8"))
STUDENT = asset("toy_student")
TEST_SPLIT_SHA256 = "76f7bb581102372c8a87b25856978460d28cfb7d1a972835db8f1313dbd69a70"
SHARES = {"plain": (0.12, 0.25), "rule": (0.40, 0.55), "reasoning": (0.27, 0.42)}


# --- a second reader of titles ------------------------------------------------------------------------------------


def read_title(title):
    """Kind, what the product is for (accessories), model (devices) and the title without colour or size."""
    kinds = {kind["name"] for kind in CATALOGUE["kinds"]} | {device["name"] for device in CATALOGUE["devices"]}
    head, *rest = re.split(r", | for ", title)
    kind = max((k for k in kinds if head.endswith(" " + k)), key=len)
    colours_and_sizes = {v for values in CATALOGUE["variants"].values() for v in values}
    variant = rest.pop() if rest and rest[-1] in colours_and_sizes else ""
    devices = {m: d["models"][m] for d in CATALOGUE["devices"] for m in d["models"] if d["name"] == kind}
    model = head.removesuffix(" " + kind) if kind in {d["name"] for d in CATALOGUE["devices"]} else ""
    assert not model or model in devices
    assert len(rest) <= 1
    return kind, rest[0] if rest else "", model, title.removesuffix(f", {variant}")


def fits(accessory, device):
    """Whether the first title's product is made for the second's."""
    target, model = read_title(accessory)[1], read_title(device)[2]
    takes = [m for d in CATALOGUE["devices"] for name, m in d["models"].items() if name == model]
    return bool(target and takes) and target in {model, *takes[0].values()}


def relations(first, second):
    """Every way in which two titles belong together."""
    (kind, target, _, line), (kind2, target2, _, line2) = read_title(first), read_title(second)
    found = set()
    if line == line2:
        found.add("plain")
    elif (kind, target) == (kind2, target2):
        found.add("R1")
    if kind != kind2:
        for number, kinds in enumerate(CATALOGUE["activities"].values(), start=2):
            if kind in kinds and kind2 in kinds:
                found.add(f"R{number}")
        if fits(first, second) or fits(second, first) or (target == target2 and target in MODELS):
            found.add("reasoning")
    return found


@pytest.fixture(scope="module")
def every_session():
    return tuple(session for split in SPLITS for session in toyshop.load(split))


# --- sessions -----------------------------------------------------------------------------------------------------


def test_the_test_split_never_changes():
    sessions = toyshop.load("test")
    content = [[s.id, s.items, s.titles, [sorted(b) for b in s.bundles], s.intents, s.why] for s in sessions]
    assert sha256_json(content) == TEST_SPLIT_SHA256


def test_sessions_do_not_depend_on_the_hash_seed():
    code = (
        "from routedk_lite.data import toyshop; from routedk_lite.files import sha256_json;"
        "print(sha256_json([[s.titles, s.why, [sorted(b) for b in s.bundles]] for s in toyshop.generate(40, seed=3)]))"
    )
    digests = set()
    for hash_seed in ("0", "1"):
        command = [sys.executable, "-c", code]
        run = subprocess.run(
            command,
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=asset().parents[1],
        )
        digests.add(run.stdout)
    assert len(digests) == 1


@given(seed=st.integers(-(2**40), 2**40), n=st.integers(1, 8), more=st.integers(0, 8))
@settings(max_examples=40)
def test_a_longer_draw_begins_with_the_shorter(seed, n, more):
    assert toyshop.generate(n + more, seed=seed)[:n] == toyshop.generate(n, seed=seed)


@given(seed=st.integers())
@settings(max_examples=30)
def test_any_seed_gives_sound_sessions(seed):
    for session in toyshop.generate(5, seed=seed):
        check_session(session)


def test_seeds_differ():
    assert toyshop.generate(5, seed=1) != toyshop.generate(5, seed=2)


def test_splits_have_their_sizes_and_share_nothing(every_session):
    assert {split: len(toyshop.load(split)) for split in SPLITS} == {"train": 600, "validation": 120, "test": 240}
    assert len({s.id for s in every_session}) == 960
    assert len({frozenset(s.titles) for s in every_session}) == 960


def test_load_domain_serves_the_toy_shop():
    assert load_domain("toyshop", "validation").sessions == toyshop.load("validation")


def check_session(session):
    """All that holds for every session, by the second reader."""
    assert 3 <= len(session) <= 10
    assert len(set(session.titles)) == len(session)
    assert len(session.bundles) == len(session.why) == len(session.intents) >= 1
    assert not any(a <= b or b <= a for a, b in combinations(session.bundles, 2))
    title = dict(enumerate(session.titles, start=1))
    for bundle, why in zip(session.bundles, session.why, strict=True):
        assert 2 <= len(bundle) <= toyshop.MAX_BUNDLE
        assert (why.rule in toyshop.RULES) == (why.kind == "rule")
        reason = why.rule or why.kind
        members = [title[n] for n in bundle]
        devices = [m for m in members if read_title(m)[2]]
        if why.kind == "reasoning" and devices:
            assert len({read_title(d)[3] for d in devices}) == 1
            assert all(fits(m, devices[0]) for m in members if m not in devices)
            assert len(members) > len(devices)
        else:  # every member is related to some other member, for the stated reason
            assert all(any(reason in relations(a, b) for b in members if a != b) for a in members)
    for a, b in combinations(title, 2):  # and nothing that belongs together was missed
        together = any({a, b} <= bundle for bundle in session.bundles)
        assert together or not relations(title[a], title[b]), (session.id, a, b)


def test_every_bundle_follows_from_titles_and_catalogue(every_session):
    for session in every_session:
        check_session(session)


def test_the_reasoning_names_the_items_of_its_bundle(every_session):
    for session in every_session:
        for bundle, why in zip(session.bundles, session.why, strict=True):
            mentions = re.findall(r"items? (\d+(?:, \d+)*(?: and \d+)?)", why.reasoning, re.IGNORECASE)
            numbers = {int(n) for mention in mentions for n in re.findall(r"\d+", mention)}
            assert numbers == bundle, why.reasoning
            without = re.sub(r"items? \d+(?:, \d+)*(?: and \d+)?", "", why.reasoning, flags=re.IGNORECASE)
            shown = " ".join(session.titles[n - 1] for n in bundle)
            for numeral in re.findall(r"\d+", without):  # such as the 7 of the Lumo 7
                assert re.search(rf"(?<!\d){numeral}(?!\d)", shown)


def test_all_kinds_of_reasons_occur_in_the_stated_shares(every_session):
    counts = Counter(why.kind for s in every_session for why in s.why)
    for kind, (low, high) in SHARES.items():
        assert low <= counts[kind] / sum(counts.values()) <= high, counts
    used = {why.rule for s in every_session for why in s.why} - {""}
    assert used == set(toyshop.RULES)


def test_distractors_and_overlaps_occur(every_session):
    covered = [frozenset().union(*s.bundles) for s in every_session]
    with_distractor = [len(s) > len(items) for s, items in zip(every_session, covered, strict=True)]
    with_overlap = [any(a & b for a, b in combinations(s.bundles, 2)) for s in every_session]
    assert 0.7 < sum(with_distractor) / 960 < 0.95
    assert 0.15 < sum(with_overlap) / 960 < 0.4


def test_accessories_of_the_wrong_model_occur_beside_the_device(every_session):
    """A lure: the same kind of accessory as one that fits, but for another model."""
    lures = 0
    for session in every_session:
        devices = [t for t in session.titles if read_title(t)[2]]
        for device in devices:
            kinds = KINDS[read_title(device)[0]]["accessories"]
            lures += any(read_title(t)[0] in kinds and not fits(t, device) for t in session.titles)
    assert lures > 100


def test_titles_are_told_apart(every_session):
    titles = Counter(t for s in every_session for t in s.titles)
    items = {(i, t) for s in every_session for i, t in zip(s.items, s.titles, strict=True)}
    assert len(titles) > 2000
    assert len(items) == len({i for i, _ in items}) == len({t for _, t in items})


def test_catalogue_is_sound():
    for kind in CATALOGUE["kinds"]:
        assert kind["brands"] in CATALOGUE["brands"], kind["name"]
        assert kind["variants"] in CATALOGUE["variants"], kind["name"]
    named = {kind for kinds in CATALOGUE["activities"].values() for kind in kinds}
    named |= {kind for device in CATALOGUE["devices"] for kind in device["accessories"]}
    assert named <= KINDS.keys()
    assert len(KINDS) == len(CATALOGUE["kinds"]) + len(CATALOGUE["devices"])


@given(rng=st.randoms(use_true_random=False), kind=st.sampled_from(sorted(KINDS)))
@settings(max_examples=150)
def test_titles_can_be_read_back(rng, kind):
    product = draw_product(rng, kind)
    read_kind, target, model, line = read_title(product.title)
    assert (read_kind, target, line) == (kind, product.target, product.line.title)
    assert model == (product.maker if product.maker in MODELS else "")


@pytest.mark.parametrize(
    ("n", "seed", "error", "words"),
    [
        (0, 0, ValueError, "n is 0"),
        (-3, 0, ValueError, "n is -3"),
        (2.0, 0, TypeError, r"n is 2\.0"),
        (True, 0, TypeError, "n is True"),
        (2, None, TypeError, "seed is None"),
        (2, "7", TypeError, "seed is '7'"),
    ],
)
def test_generate_refuses_bad_arguments(n, seed, error, words):
    with pytest.raises(error, match=words):
        toyshop.generate(n, seed=seed)


def test_load_refuses_an_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'dev'.*train, validation, test"):
        toyshop.load("dev")


# --- the student --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student():
    from routedk_lite.student.backbone import load_student

    return load_student("toy", device="cpu")


def test_student_is_small_and_loads_offline(student):
    files = [path for path in STUDENT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl"}]
    assert 700_000 <= student.model.num_parameters() <= 1_500_000
    assert all(parameter.isfinite().all() for parameter in student.model.parameters())


def test_tokenizer_keeps_numbers_and_lines_whole(student):
    tokenizer = student.tokenizer
    for number in range(1, 11):
        assert len(tokenizer(str(number), add_special_tokens=False)["input_ids"]) == 1
    assert len(tokenizer("\n", add_special_tokens=False)["input_ids"]) == 1
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, None}) == 4
    assert tokenizer.chat_template is None


@given(data=st.data(), n_items=st.integers(2, 10))
def test_tokenizer_round_trips_answers(student, data, n_items):
    bundle = st.frozensets(st.integers(1, n_items), min_size=2)
    answer = format_answer(data.draw(st.lists(bundle, min_size=1, max_size=4)))
    ids = encode_answer(answer, student.tokenizer)
    assert ids[-1] == student.tokenizer.eos_token_id
    decoded = student.tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded == answer
    assert not parse_answer(decoded, n_items).problems


@given(text=st.text())
def test_tokenizer_loses_no_text_of_any_alphabet(student, text):
    ids = student.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert student.tokenizer.decode(ids) == text


def test_words_of_the_shop_are_single_tokens(student, every_session):
    titles = {t for s in every_session for t in s.titles}
    words = {word for title in titles for word in re.findall(r"[A-Za-z-]{2,}", title)}
    split = [w for w in words if len(student.tokenizer(f"a {w}", add_special_tokens=False)["input_ids"]) != 2]
    assert not split
    lengths = [len(encode_prompt(build_prompt(s.titles), student.tokenizer)) for s in every_session]
    assert max(lengths) + 40 < student.model.config.max_position_embeddings


def test_student_recalls_a_title_by_its_number(student):
    """What its pretraining was for; half of all titles is far above chance."""
    import torch

    right = 0
    sessions = toyshop.load("validation")[:40]
    for session in sessions:
        question = build_prompt(session.titles).removesuffix("Bundles:\n") + "2."
        ids = torch.tensor([encode_prompt(question, student.tokenizer)])
        with torch.no_grad():
            answer = student.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20)
        text = student.tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
        right += text.partition("\n")[0].strip() == session.titles[1]
    assert right / len(sessions) > 0.5


def test_pretraining_is_recorded_and_went_down():
    record = json.loads((STUDENT / "pretraining.json").read_text(encoding="utf-8"))
    steps, losses = zip(*record["loss_curve"], strict=True)
    assert list(steps) == sorted(set(steps))
    assert steps[-1] == record["configuration"]["steps"]
    assert losses[-1] < 0.25 * losses[0]
    assert {"seed", "versions", "seconds", "parameters"} <= record.keys()


def test_pretraining_never_shows_the_task(every_session):
    """Not its cue, not its answers, and no listing of the three splits."""
    script = load_script("pretrain_toy")
    known = {frozenset(s.titles) for s in every_session}
    rng = random.Random(5)
    for number in range(400):
        made = script.document(rng, known, script.facts(), toyshop.MAX_ITEMS, lines=number % 2 == 1)
        text = "".join(piece for piece, _ in made)
        assert "bundle" not in text.lower()
        assert not re.search(r"^\d+( \d+)+$", text, re.MULTILINE)
