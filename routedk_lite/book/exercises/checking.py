"""What the checkers of all chapters share: what is said of a stub, of made-up cases and of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

UNANSWERED = "Not answered yet: fill in the stub above and run both cells again."
N_RANDOM = 300
"""Random tasks that a function is compared on."""


def cases_hold(attempt: Callable[..., object], cases: Iterable[tuple]) -> bool:
    """Try a reader's function on made-up cases, one after the other, and say which of them it gets right.

    Args:
        attempt: takes what stands in a case, and last what the case is about; gives what the reader's function gave,
            and raises an AssertionError where that is wrong.
        cases: what each is about, in words, and what `attempt` takes.

    Returns:
        False, and a note is printed, where the function is a stub still; else True.
    """
    for why, *case in cases:
        if attempt(*case, why) is ...:
            print(UNANSWERED)
            return False
        print(f"ok: {why}")
    return True


def verdicts_hold(what: str, verdicts: Mapping[str, str], truth: Mapping[str, str], hint: str) -> bool:
    """Hold one word for each of several made-up things against the right ones.

    Args:
        what: what such a thing is called.
        verdicts: name → word; `?` or `...` where nothing is said yet.
        truth: name → right word.
        hint: a question that helps.

    Returns:
        False, and a note is printed, while a verdict is missing; else True.

    Raises:
        AssertionError: a word is none of the possible ones, or wrong; all wrong ones are named.
    """
    if any(verdict in ("?", ...) for verdict in verdicts.values()):
        print(UNANSWERED)
        return False
    words = sorted(truth.values())
    for name, verdict in verdicts.items():
        assert verdict in words, f"{what} {name}: {verdict!r} is none of {', '.join(words)}"
    wrong = [name for name in truth if verdicts.get(name) != truth[name]]
    assert not wrong, f"{what} {', '.join(wrong)}: look again. {hint}"
    return True
