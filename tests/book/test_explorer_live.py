"""The live explorer without a page: what its controls do, when the model is asked, what is shown."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace

import ipywidgets
import numpy as np
import pytest
import torch
from adapted import learned, make_adapter

from routedk_lite.answers.answering import answer_sessions
from routedk_lite.answers.asking import ask
from routedk_lite.answers.decoding import greedy_answers
from routedk_lite.answers.partitions import PartitionDecoder, SizePrior
from routedk_lite.book.explorer import live as explorer_live
from routedk_lite.book.explorer.live import LiveExplorer
from routedk_lite.book.explorer.waiting import Debouncer
from routedk_lite.config import DecodeConfig, PairConfig, PromptConfig, VoteConfig
from routedk_lite.data.parsing import parse_answer
from routedk_lite.data.prompts import encode_prompt, session_prompt
from routedk_lite.data.sessions import Session
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.layers import RoutedLinear
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.pairs import make_reader

EVIL = "<script>alert('x')</script> & \"more\""


@pytest.fixture(scope="module")
def folders(tiny_llama, tmp_path_factory):
    top = tmp_path_factory.mktemp("experts")
    return [make_adapter(tiny_llama, top / f"e{i}-seed0", r=2, targets=["q_proj"], seed=i + 1) for i in range(3)]


@pytest.fixture
def model(tiny_student, folders):
    return learned(RoutedModel(tiny_student.model, folders, Dynamic()))


@pytest.fixture
def live(model, tiny_student, tiny_profile, sessions):
    made = LiveExplorer(model, tiny_student, sessions, profile=tiny_profile, wait=0.02)
    yield made
    made.later.cancel()


@pytest.fixture
def asked(monkeypatch):
    """How often, and with which session, the model is asked from now on."""
    calls = []

    def counted(model, student, session, **how):
        calls.append(session.titles)
        return ask(model, student, session, **how)

    monkeypatch.setattr(explorer_live, "ask", counted)
    return calls


def drag(live, *weights):
    for slider, weight in zip(live.sliders, weights, strict=True):
        slider.value = weight


# One session


def test_tokens_carry_the_models_probabilities(model, tiny_student, tiny_profile, sessions):
    session = sessions[3]
    found = ask(model, tiny_student, session, profile=tiny_profile)
    ids = encode_prompt(session_prompt(session, tiny_student.tokenizer, tiny_profile.prompt), tiny_student.tokenizer)
    written = []
    for token in found.tokens:
        with torch.no_grad():
            p = model(torch.tensor([ids + written])).logits[0, -1].softmax(-1)
        assert token.probability == pytest.approx(float(p.max()), abs=1e-4)
        assert [o[1] for o in token.others] == pytest.approx(p.topk(4).values[1:].tolist(), abs=1e-4)
        written.append(int(p.argmax()))
    text = tiny_student.tokenizer.decode(written, skip_special_tokens=True)
    assert found.bundles == parse_answer(text, len(session)).bundles and found.pairs is None
    with torch.no_grad():
        model(torch.tensor([ids]))
    assert np.allclose(found.alpha, model.alpha[0], atol=1e-6)


def test_pairs_decide_where_they_are_read(tiny_student, tiny_profile, folders, sessions):
    reader = make_reader(tiny_student, sessions, PairConfig(layer=2), tiny_profile.prompt)
    model = learned(RoutedModel(tiny_student.model, folders, Dynamic()))
    how = {"profile": tiny_profile, "reader": reader, "decoder": PartitionDecoder(prior=SizePrior(sessions))}
    found = ask(model, tiny_student, sessions[3], **how)
    assert found.pairs.shape == (len(sessions[3]),) * 2 and ((found.pairs > 0) & (found.pairs < 1)).all()
    live = LiveExplorer(model, tiny_student, sessions, **how)
    assert (
        "How likely two products belong together" in live.output.value
        and "read from the model's pairs" in live.output.value
    )
    with pytest.raises(ValueError, match="reader and decoder belong together"):
        ask(model, tiny_student, sessions[3], profile=tiny_profile, reader=reader)
    titles = tuple(f"thing {i}" for i in range(13))
    long = Session(id=1, items=titles, titles=titles, bundles=())
    with pytest.raises(ValueError, match="13 products: pairs are decoded for at most 12"):
        ask(model, tiny_student, long, **how)


def in_letters(profile, **decode):
    return replace(
        profile, prompt=PromptConfig(fmt="letters"), decode=DecodeConfig(**decode), vote=VoteConfig(n=5, sizes=(1, 5))
    )


@pytest.mark.parametrize("by_hand", [False, True])
def test_of_an_answer_in_letters_only_these_are_chosen(model, tiny_student, tiny_profile, sessions, by_hand):
    """Each among the legal ones, behind all that is given, whatever length free answers may have."""
    profile, tokenizer = in_letters(tiny_profile, max_new_tokens=2), tiny_student.tokenizer
    for session in sessions[2:6]:
        with model.override([0.2, 2.0, -1.0]) if by_hand else nullcontext():
            found = ask(model, tiny_student, session, profile=profile)
            (alone,) = greedy_answers(model, tokenizer, [session], prompt=profile.prompt, progress=False)
        assert found.bundles == alone.bundles and found.pairs is None and not found.n_samples
        assert " ".join(token.text.strip() for token in found.tokens) == alone.text
        assert np.log([t.probability for t in found.tokens]).mean() == pytest.approx(alone.log_prob, abs=1e-4)
        for token, title in zip(found.tokens, session.titles, strict=True):
            assert title in token.given and len(token.others) in (1, 2)
            assert token.probability + sum(p for _, p in token.others) == pytest.approx(1)
            assert token.probability >= max(p for _, p in token.others)
        with torch.no_grad():
            model(torch.tensor([encode_prompt(session_prompt(session, tokenizer, profile.prompt), tokenizer)]))
        assert np.allclose(found.alpha, [[0.2, 2.0, -1.0]] * 2 if by_hand else model.alpha[0], atol=1e-6)


@pytest.mark.parametrize("fmt", ["letters", "compact"])
def test_a_profile_that_takes_the_consensus_is_asked_for_it(model, tiny_student, tiny_profile, sessions, fmt):
    """Also where experts learnt the states of lines, from which nothing is read in answering."""
    profile = in_letters(tiny_profile, choose="consensus", max_new_tokens=8)
    profile = replace(profile, prompt=PromptConfig(fmt=fmt), pairs=PairConfig(layer=1, at="lines"))
    common = {"profile": profile, "student": tiny_student, "reader": None, "train": (), "validation": ()}
    expected = answer_sessions(model, sessions, **common, progress=False)
    for session in sessions[:4]:
        found = ask(model, tiny_student, session, profile=profile)
        assert found.bundles == tuple(expected[session.id]) and found.n_samples == 5
    live = LiveExplorer(model, tiny_student, sessions, profile=profile)
    assert "Bundles are the consensus of 5 sampled answers." in live.output.value
    assert live.show(["one thing", "another"]).bundles is not None


# Weights


def test_weights_by_hand_and_back(live):
    router = live.reading
    found = live.override([0, 0, 1])
    assert (found.alpha == [0, 0, 1]).all()
    assert "weights by hand in all layers" in live.status.value
    assert [slider.value for slider in live.sliders] == [0, 0, 1]
    found = live.override([1, 0, 0], layer=1)
    assert (found.alpha == [[0, 0, 1], [1, 0, 0]]).all() and "all layers, layer 1" in live.status.value
    back = live.release()
    assert back is live.router and np.allclose(back.alpha, router.alpha) and "the router&#x27;s" in live.status.value


def test_one_layer_by_hand_leaves_the_lower_ones_to_the_router(live):
    router = live.reading.alpha
    found = live.override([0, 1, 0], layer=1).alpha
    assert (found[1] == [0, 1, 0]).all() and np.allclose(found[0], router[0])


def test_weights_that_make_no_sense_are_refused(live):
    for weights in ([1, 0], [1, 0, -1]):
        with pytest.raises(ValueError, match="give one of 0 or more for each of e0, e1, e2"):
            live.override(weights)
    with pytest.raises(ValueError, match=r"layer = 7: choose one of \[0, 1\], or None for all"):
        live.override([1, 0, 0], layer=7)
    assert not live.overrides


def test_sliders_that_sum_to_one_share_what_is_left(live, asked):
    others = live.reading.alpha.mean(0)[1:]
    live.sliders[0].value = 0.6
    wanted = [0.6, *(0.4 * w / sum(others) for w in others)]
    assert asked and live.reading.alpha == pytest.approx(np.array([wanted] * 2), abs=1e-5)
    assert [s.value for s in live.sliders] == pytest.approx(wanted, abs=1e-5), "no slider jumps back"
    live.sliders[0].value = 1
    live.sliders[0].value = 0.5
    assert live.reading.alpha[0] == pytest.approx([0.5, 0.25, 0.25]), "nothing is left of how they shared"


def test_a_browser_sends_no_slider_back_that_was_set_from_here(live):
    """Seen in JupyterLab: it rounds to the step, and the echo would pass for a hand on the slider."""
    assert not any(slider.continuous_update for slider in live.sliders)


def test_sliders_can_be_free_and_for_one_layer(live):
    live.shares.value = False
    drag(live, 1, 1, 0)
    assert live.overrides[None] == (1, 1, 0) and (live.reading.alpha == [1, 1, 0]).all()
    live.layer.value = 1
    drag(live, 0, 0, 1)
    assert (live.reading.alpha == [[1, 1, 0], [0, 0, 1]]).all()
    drag(live, 0, 0, 0)
    assert (live.reading.alpha[1] == 0).all(), "the student without any expert"
    live.back.click()
    assert not live.overrides and live.reading is live.router


def test_sliders_follow_the_layer_that_is_looked_at(live, asked):
    live.layer.value = 0
    assert [s.value for s in live.sliders] == pytest.approx(live.reading.alpha[0], abs=0.006)
    live.layer.index = 0  # as a browser does it
    assert live.layer.index == 0 and live.layer.label == "all layers", "the list does not go blank"
    assert [s.value for s in live.sliders] == pytest.approx(live.reading.alpha.mean(0), abs=0.006)
    assert not asked, "looking asks nothing"


# Sessions


def test_a_session_of_ones_own(live):
    live.text.value = f"  {EVIL} \n\nsecond thing\nthird thing\n"
    assert live.session.titles == (EVIL, "second thing", "third thing")
    shown = live.output.value
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "Your session" in shown and "true" not in [c.strip() for c in shown.split("<")] and "strict F1" in shown
    assert live.snapshot().data.count("<style>") == 1


def test_too_few_products_are_asked_for(live, asked):
    live.text.value = "only one"
    assert "at least two products" in live.status.value and not asked
    with pytest.raises(ValueError, match="1 products: give at least two"):
        live.show(["only one", " "])


def test_sessions_can_be_chosen(live, sessions, asked):
    live.choice.value = 4
    assert live.session is sessions[4] and live.text.value.splitlines() == list(sessions[4].titles)
    assert asked == [sessions[4].titles] and f"Session {sessions[4].id}" in live.output.value


def test_weights_by_hand_stay_for_the_next_session(live, sessions):
    live.override([0, 1, 0])
    found = live.show(sessions[5])
    assert (found.alpha == [0, 1, 0]).all() and not (live.router.alpha == [0, 1, 0]).any()


# When it asks


def test_many_changes_become_one_question(live, asked):
    async def hand() -> None:
        for k in range(1, 10):
            live.sliders[0].value = k / 10
        assert live.later.waiting and not asked and "waiting" in live.status.value
        await asyncio.sleep(0.2)

    asyncio.run(hand())
    assert len(asked) == 1 and not live.later.waiting
    assert live.reading.alpha[:, 0] == pytest.approx(0.9)


def test_it_says_that_it_computes(live):
    said = []
    live.status.observe(lambda change: said.append(change["new"]), "value")
    live.override([1, 0, 0])
    assert 'aria-busy="true"' in said[0] and "computing" in said[0]
    assert 'aria-busy="false"' in said[-1] and " s</div>" in said[-1]


def test_a_question_can_be_taken_back():
    called = []

    async def change_ones_mind() -> None:
        later = Debouncer(lambda: called.append(1), 0.01)
        later()
        later.cancel()
        await asyncio.sleep(0.05)

    asyncio.run(change_ones_mind())
    assert not called
    Debouncer(lambda: called.append(2), 5)()
    assert called == [2], "without a loop nothing would come back later"


def test_what_goes_wrong_is_said(live, monkeypatch):
    def fail(*args, **how):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(explorer_live, "ask", fail)
    with pytest.raises(RuntimeError):
        live.override([1, 0, 0])
    assert "That did not work: no memory left" in live.status.value


# Frame


def test_only_core_widgets_are_used(live):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    used = list(walk(live.widget))
    assert len(used) > 10
    assert {w._view_module for w in used} == {"@jupyter-widgets/controls"}
    assert all(type(w).__module__.startswith("ipywidgets.") for w in used)
    controls = [w for w in used if hasattr(w, "description") and not isinstance(w, ipywidgets.HTML)]
    assert len(controls) == 8 and all(w.description for w in controls), "each control has a name"


def test_only_what_ipywidgets_7_knows_is_set(live):
    """Colab has 7.7; what came with 8, a tooltip on every control among it, is silently lost there or refused."""
    shared = {
        "Box": {"children"},
        "Button": {"description"},
        "Checkbox": {"description", "indent", "value"},
        "Dropdown": {"description", "options", "value"},
        "FloatSlider": {"continuous_update", "description", "max", "readout_format", "step", "value"},
        "HTML": {"value"},
        "Layout": {"display", "flex", "flex_flow", "height", "min_width", "padding", "width"},
        "Style": {"description_width"},
        "Textarea": {"description", "value"},
        "VBox": {"children"},
    }
    pending, seen = [live.widget], set()
    while pending:
        widget = pending.pop()
        pending += [w for name in ("style", "layout") if (w := getattr(widget, name, None)) is not None]
        pending += getattr(widget, "children", ())
        name = "Style" if type(widget).__name__.endswith("Style") else type(widget).__name__
        assert set(widget._repr_keys()) - {"style", "layout"} <= shared[name], name
        seen.add(name)
    assert seen == shared.keys()


def test_it_shows_itself(live):
    shown = live._repr_mimebundle_()
    widget = "application/vnd.jupyter.widget-view+json"
    assert widget in shown and shown["text/plain"] == f"LiveExplorer: e0, e1, e2 on {live.student.info.id}, session 0"
    assert live.output.value in shown["text/html"], "pages without a kernel show what there was at first"
    live.widget.close()
    assert set(live._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_it_shows_itself_with_ipywidgets_7(live, monkeypatch):
    """Whose widgets have no bundle of their own to give."""
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")
    shown = live._repr_mimebundle_()
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == live.widget.model_id
    assert {"text/html", "text/plain"} < shown.keys()


def test_it_goes_through_a_folder(model, tiny_profile, tmp_path, live):
    model.save_pretrained(tmp_path / "model")
    again = LiveExplorer.from_folder(tmp_path / "model", tiny_profile, "toyshop")
    assert again.names == ("e0", "e1", "e2") and again.session.id == again.sessions[0].id
    again.close()
    assert not [m for m in again.student.model.modules() if isinstance(m, RoutedLinear)]


def test_a_consensus_profile_is_opened_from_a_folder(model, tiny_profile, tmp_path):
    """Its pairs are of lines, which are there in training only: no record has a decoder of them."""
    model.save_pretrained(tmp_path / "model")
    profile = in_letters(tiny_profile, choose="consensus", max_new_tokens=8)
    profile = replace(profile, pairs=PairConfig(layer=1, at="lines"))
    live = LiveExplorer.from_folder(tmp_path / "model", profile, "toyshop", results=tmp_path / "none")
    assert live.reading.n_samples == 5 and live.reading.pairs is None
    live.close()
    with pytest.raises(ValueError, match="whose decoder is needed"):
        pairs = replace(tiny_profile, pairs=PairConfig(layer=1))
        LiveExplorer.from_folder(tmp_path / "model", pairs, "toyshop", results=tmp_path / "none")


def test_no_sessions_no_explorer(model, tiny_student, tiny_profile):
    with pytest.raises(ValueError, match="sessions is empty"):
        LiveExplorer(model, tiny_student, [], profile=tiny_profile)
