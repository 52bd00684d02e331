"""The control task: both habits stand in the titles, contradict each other, and only the prompt says which is right."""

from itertools import combinations

import pytest

from routedk_lite.data import habits
from routedk_lite.data.domains import load_domain
from routedk_lite.data.metrics import evaluate
from routedk_lite.data.sessions import SPLITS

EVERY = [session for split in SPLITS for session in load_domain("habits", split)]


def test_splits_have_their_sizes_and_share_no_session():
    splits = {split: load_domain("habits", split) for split in SPLITS}
    assert {split: len(domain) for split, domain in splits.items()} == habits.SIZES
    assert len({session.id for session in EVERY}) == len({frozenset(s.titles) for s in EVERY}) == len(EVERY)


@pytest.mark.parametrize("split", SPLITS)
def test_both_shoppers_come_about_equally_often(split):
    sessions = load_domain("habits", split).sessions
    share = sum(habits.right_habit(s.titles) == "by_kind" for s in sessions) / len(sessions)
    assert 0.4 < share < 0.6


def test_the_habits_agree_on_no_pair():
    for session in EVERY:
        kind, use = (habits.habit_bundles(session.titles, habit) for habit in habits.HABITS)
        assert kind and use
        pairs = [{pair for bundle in found for pair in combinations(sorted(bundle), 2)} for found in (kind, use)]
        assert not pairs[0] & pairs[1]


def test_one_habit_is_right_about_its_own_shoppers_and_wrong_about_all_others():
    for habit in habits.HABITS:
        answers = {s.id: habits.habit_bundles(s.titles, habit) for s in EVERY}
        for shopper in habits.HABITS:
            own = [s for s in EVERY if habits.right_habit(s.titles) == shopper]
            found = evaluate({s.id: answers[s.id] for s in own}, own, "strict")
            assert found.f1 == found.exact_match == (1.0 if shopper == habit else 0.0)


def test_an_unknown_habit_is_named():
    with pytest.raises(ValueError, match="habit = 'by_price': choose one of by_kind, by_use"):
        habits.habit_bundles(["a", "b"], "by_price")
