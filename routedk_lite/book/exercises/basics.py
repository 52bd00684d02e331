"""Checkers of the chapters' exercises.

Each says what it tried and, where an answer is wrong, raises an AssertionError whose text leads on. A stub
that still holds `...` (or "?") is no error, so that a chapter runs to its end before anybody has answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from ...answers.baselines import consecutive_pairs, random_partition
from ...data.metrics import Metrics, evaluate, per_session
from ...data.sessions import Bundle, Session
from .checking import N_RANDOM, UNANSWERED, cases_hold, verdicts_hold

DIRECTIONS = ("up", "down", "same")
SHY_EVERY = 10
"""The shy student of chapter 01 answers one session in so many."""


# --- chapter 01 ------------------------------------------------------------------------------------------


def check_strict_recall(strict_recall: Callable[[list[Bundle], list[Bundle]], float]) -> None:
    """Compare a reader's strict recall of one session with that of `metrics`.

    Args:
        strict_recall: takes the predicted and the annotated bundles of one session, both as lists of sets,
            and returns a number.

    Raises:
        AssertionError: it differs; the message shows the first such case and hints at the reason.
    """
    cases = [
        ("one bundle of two is found", [{1, 2}], [{1, 2}, {3, 4}]),
        ("two pieces of the same bundle count once", [{1, 2}, {2, 3}], [{1, 2, 3}, {4, 5}]),
        ("a predicted bundle that is too large finds nothing", [{1, 2, 3}], [{1, 2}]),
        ("one piece may find two bundles that overlap", [{1, 2}], [{1, 2, 3}, {1, 2, 4}]),
        ("a single item finds nothing", [{1}], [{1, 2}]),
        ("an empty answer scores zero", [], [{1, 2}]),
        ("a bundle annotated twice counts once", [{1, 2}], [{1, 2}, {1, 2}, {3, 4}]),
    ]
    if not cases_hold(partial(_try_recall, strict_recall), cases):
        return
    generator = np.random.default_rng(1)
    for _ in range(N_RANDOM):
        predicted, truth = (_random_bundles(generator) for _ in range(2))
        _try_recall(strict_recall, predicted, truth, "a random task")
    print(f"ok: equal to metrics.per_session on {N_RANDOM} random sessions")


def _try_recall(answer: Callable, predicted: list, truth: list, why: str) -> object:
    """Call the reader's function and compare; returns what it gave."""
    found = answer([frozenset(b) for b in predicted], [frozenset(b) for b in truth])
    if found is ...:
        return found
    shown = f"for the answer {predicted} and the annotation {truth}"
    assert isinstance(found, (int, float, np.number)), (
        f"{shown} your function gave {found!r}, not a number: is a return missing?"
    )
    names = tuple("123456")
    session = Session(id=1, items=names, titles=names, bundles=tuple(frozenset(b) for b in truth))
    expected = per_session({1: predicted}, [session], "strict").recall[0]
    assert abs(found - expected) < 1e-9, (
        f"{shown} your function gave {found:.3f}, strict recall is {expected:.3f} ({why})"
    )
    return found


def _random_bundles(generator: np.random.Generator) -> list[set[int]]:
    """One to four bundles of two to four of six items, repeats allowed."""
    sizes = generator.integers(2, 5, size=generator.integers(1, 5))
    return [set((generator.permutation(6)[:size] + 1).tolist()) for size in sizes]


def check_gamed_recall(guess: Callable[[int], Sequence[Iterable[int]]], sessions: Iterable[Session]) -> None:
    """Check a predictor that sees no product: twice the official recall of pairs, at no loss of precision.

    Args:
        guess: takes the number of items in a session, and nothing else, and returns bundles.
        sessions: where it is measured.

    Raises:
        AssertionError: it gives no bundles, or misses one of the marks; the message says which.
    """
    sessions = tuple(sessions)
    predictions = {}
    for session in sessions:
        bundles = guess(len(session))
        if bundles is ...:
            print(UNANSWERED)
            return
        assert bundles is not None, "your function gave None: is a return missing?"
        predictions[session.id] = [list(bundle) for bundle in bundles]
    floor = evaluate({s.id: consecutive_pairs(s) for s in sessions}, sessions)
    yours, strict = evaluate(predictions, sessions), evaluate(predictions, sessions, "strict")
    print(f"measured on {len(sessions)} sessions; your function saw their lengths only")
    print(f"consecutive pairs: official precision {floor.precision:.3f}, recall {floor.recall:.3f}")
    print(f"yours:             official precision {yours.precision:.3f}, recall {yours.recall:.3f}")
    print(f"                     strict precision {strict.precision:.3f}, recall {strict.recall:.3f}")
    assert yours.valid_rate == 1, "some sessions got no bundle of two items: answer all of them"
    assert yours.recall >= 2 * floor.recall, (
        f"recall {yours.recall:.3f} is below twice that of the pairs ({2 * floor.recall:.3f}): what does the "
        "official recall count, and does it mind counting it again?"
    )
    assert yours.precision >= floor.precision - 1e-9, (
        f"recall is high enough, but precision fell from {floor.precision:.3f} to {yours.precision:.3f}: the "
        "bundles you added hit less often than the pairs. Which bundles are sure to hit just as often?"
    )
    print("ok: the official numbers got far better, the answer did not")


def shy_and_bold(sessions: Iterable[Session]) -> tuple[dict[int, list[Bundle]], dict[int, list[Bundle]]]:
    """Predictions of two students that know the same: the bundles of every tenth session.

    The bold one guesses a random partition for the other sessions, the shy one says nothing there.

    Returns:
        The bold student's predictions, then the shy one's.
    """
    bold, shy = {}, {}
    for place, session in enumerate(sessions):
        if place % SHY_EVERY == 0:
            bold[session.id] = shy[session.id] = list(session.bundles)
        else:
            bold[session.id] = random_partition(session, generator=np.random.default_rng(session.id))
    return bold, shy


def check_shy_student(answers: Mapping[str, str], sessions: Iterable[Session]) -> None:
    """Check predictions of how numbers move when a student falls silent wherever it is not sure.

    Args:
        answers: `"<protocol> <metric>"`, for example `"official precision"`, → `up`, `down` or `same`.
        sessions: where both students are measured.

    Raises:
        AssertionError: an answer is none of the three words, or wrong; all wrong ones are named.
    """
    if any(answer in ("?", ...) for answer in answers.values()):
        print(UNANSWERED)
        return
    sessions = tuple(sessions)
    bold, shy = shy_and_bold(sessions)
    wrong = []
    for question, answer in answers.items():
        assert answer in DIRECTIONS, f"{question}: {answer!r} is none of {', '.join(DIRECTIONS)}"
        before, after = (_read(evaluate(p, sessions, question.split()[0]), question) for p in (bold, shy))
        moved = "same" if abs(after - before) < 1e-9 else "up" if after > before else "down"
        print(f"{question:<20} bold {before:.3f} → shy {after:.3f}: {moved}, you said {answer}")
        wrong += [question] if moved != answer else []
    assert not wrong, f"{', '.join(wrong)}: look again at which sessions each protocol averages over"
    print("ok: all as you said")


def check_learning_curve(
    curve: Callable[[int], float], *, full: float, sizes: Sequence[int], tolerance: float = 0.05
) -> None:
    """Check a function that trains on the first `n` sessions and gives strict F1 on the test sessions.

    Args:
        curve: number of training sessions → strict F1.
        full: strict F1 of the expert that saw all of them.
        sizes: numbers of sessions to try, the last one all of them.
        tolerance: how far the last point may lie from `full`.

    Raises:
        AssertionError: not a share, or the curve does not end where the chapter's own expert stands.
    """
    found = []
    for n in sizes:
        value = curve(n)
        if value is None:
            print(UNANSWERED)
            return
        assert isinstance(value, (int, float, np.number)), f"learning_curve({n}) gave {value!r}, not a number"
        assert 0 <= value <= 1, f"learning_curve({n}) = {value:.3f} is no share: strict F1 lies between 0 and 1"
        print(f"{n:>5} sessions: strict F1 {value:.3f}")
        found.append(value)
    assert abs(found[-1] - full) <= tolerance, (
        f"with all {sizes[-1]} sessions you reach {found[-1]:.3f}, the chapter reached {full:.3f}: do you train "
        "with the same configuration, load the new expert before asking, and measure on the test sessions?"
    )
    print(f"ok: the first {sizes[0]} sessions bring {found[0]:.3f}, the other {sizes[-1] - sizes[0]} the rest")


def _read(metrics: Metrics, question: str) -> float:
    name = question.split()[1]
    return getattr(metrics, {"F1": "f1", "exact": "exact_match", "valid": "valid_rate"}.get(name, name))


# --- chapter 04 ------------------------------------------------------------------------------------------


def check_lora_size(lora_size: Callable[[int, int, int], float], break_even: Callable[[int, int], float]) -> None:
    """Check the number of weights of an adapter, and the rank from which on it saves nothing.

    Args:
        lora_size: takes d_in, d_out and r, and returns a number of weights.
        break_even: takes d_in and d_out, and returns a rank, not rounded.

    Raises:
        AssertionError: one of them is wrong for some size; the message shows it.
    """
    for d_in, d_out, r in ((64, 64, 4), (576, 1536, 16), (14336, 4096, 64)):
        size, rank = lora_size(d_in, d_out, r), break_even(d_in, d_out)
        if size is ... or rank is ...:
            print(UNANSWERED)
            return
        expected = np.empty((r, d_in)).size + np.empty((d_out, r)).size
        assert size == expected, f"lora_size({d_in}, {d_out}, {r}) gave {size}; A and B have {expected} entries"
        assert abs(rank * (d_in + d_out) - d_in * d_out) < d_in + d_out, (
            f"break_even_rank({d_in}, {d_out}) gave {rank:.1f}: an adapter of that rank has "
            f"{rank * (d_in + d_out):,.0f} weights, the layer {d_in * d_out:,}"
        )
        print(f"ok: {d_in} → {d_out}: {size:,} weights at rank {r}, no saving from rank {rank:.0f} on")


def check_merge(merged: Callable) -> None:
    """Check a function that merges several experts into one weight.

    Args:
        merged: takes W (d_out, d_in), a list of experts (A, B, scale) and the list of their shares.

    Raises:
        AssertionError: the merged layer answers otherwise than the layer with its experts.
    """
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    for alpha in ([1.0], [0.2, 0.8], [1 / 3] * 3):
        W, x = draw(6, 5), draw(4, 5)
        experts = [(draw(r, 5), draw(6, r), scale) for r, scale in zip((2, 2, 2), (2.0, 0.5, 1.0), strict=True)]
        experts = experts[: len(alpha)]
        found = merged(W.clone(), experts, alpha)
        if found is ...:
            print(UNANSWERED)
            return
        expected = x @ W.T + sum(a * s * (x @ A.T @ B.T) for a, (A, B, s) in zip(alpha, experts, strict=True))
        assert getattr(found, "shape", None) == W.shape, f"merged gave {found!r:.60}, not a matrix of W's shape"
        gap = float((x @ found.T - expected).abs().max())
        assert gap < 1e-4, (
            f"with shares {alpha} the merged layer is off by {gap:.2f}: every expert adds its share times its scale "
            "times B A, and products must be averaged, not factors"
        )
        print(f"ok: {len(alpha)} expert(s), largest difference {gap:.1e}")


# --- chapter 05 ------------------------------------------------------------------------------------------


def check_elect(elect: Callable) -> None:
    """Compare a reader's election and merge of trimmed matrices with that of `ties`.

    Args:
        elect: takes a tensor (experts, rows, columns) and returns one (rows, columns).

    Raises:
        AssertionError: an entry differs; the message shows it.
    """
    import torch

    from ...fusion.ties import elect_and_merge

    generator = torch.Generator().manual_seed(0)
    for case in range(20):
        trimmed = torch.randn(3, 4, 5, generator=generator) * (torch.rand(3, 4, 5, generator=generator) > 0.4)
        found = elect(trimmed.clone())
        if found is ...:
            print(UNANSWERED)
            return
        expected = elect_and_merge(trimmed)
        assert getattr(found, "shape", None) == expected.shape, f"elect gave {found!r:.60}, not rows × columns"
        wrong = (found - expected).abs() > 1e-5
        if wrong.any():
            r, c = wrong.nonzero()[0].tolist()
            raise AssertionError(
                f"case {case}: the experts have {[round(v, 2) for v in trimmed[:, r, c].tolist()]}, you merge "
                f"{float(found[r, c]):.2f}, TIES {float(expected[r, c]):.2f}"
            )
    print("ok: equal to ties.elect_and_merge on 20 random stacks")


def three_routers(n_sessions: int = 200, n_layers: int = 4) -> dict[str, np.ndarray]:
    """α of three made-up routers, by a name that tells nothing.

    Shapes:
        each: (sessions, layers, 3)
    """
    generator = np.random.default_rng(0)
    shape = (n_sessions, n_layers)
    idle = generator.dirichlet([300, 300, 300], size=shape)
    stubborn = generator.dirichlet([8, 1, 1], size=shape)
    listening = generator.dirichlet([8, 1, 1], size=shape)
    turned = np.stack([np.roll(rows, generator.integers(3), axis=-1) for rows in listening])
    return {"A": turned, "B": idle, "C": stubborn}


def check_routers(verdicts: Mapping[str, str]) -> None:
    """Check which of `three_routers` learned nothing, always prefers one expert, or listens to the session.

    Args:
        verdicts: name → `idle`, `stubborn` or `listening`.

    Raises:
        AssertionError: a word is none of the three, or wrong; all wrong ones are named.
    """
    truth = {"A": "listening", "B": "idle", "C": "stubborn"}
    hint = "What would knowing the session tell about the expert?"
    if verdicts_hold("router", verdicts, truth, hint):
        print("ok: A listens, B is idle, C is stubborn")
