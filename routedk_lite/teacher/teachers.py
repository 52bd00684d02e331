"""What a teacher is: it answers conversations. Its answers, those that are none, and what they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Messages = list[dict[str, str]]
"""A conversation: turns with a role (`system`, `user` or `assistant`) and a content."""


class TeacherError(RuntimeError):
    """A teacher could not be asked, or its answers cannot be used."""


class NoAnswer(str):
    """What stands for an answer where a teacher gave none: an empty text that says why.

    Args:
        why: the reason, as the end of a sentence.
    """

    why: str

    def __new__(cls, why: str) -> NoAnswer:
        self = super().__new__(cls)
        self.why = why
        return self


class CutOff(str):
    """An answer that was cut off at the limit of tokens: what stands in it may be a draft, or all of it a thought."""


CUT_OFF = ("length", "max_tokens")
"""How servers say why they stopped, when it was the limit."""


class Teacher(Protocol):
    """Whoever answers conversations.

    A teacher whose answers may turn out otherwise next time has a method `reject(messages, max_tokens, answer, why)`:
    an answer that could not be used is kept, but asked for again. One that cannot be sure who answers has a mapping
    `served` from the models that did, in words, to the number of their answers.
    """

    name: str
    """Which model this is, and where."""
    sampling: str
    """How answers are drawn."""

    def ask(self, conversations: Sequence[Messages], *, max_tokens: int, progress: bool = True) -> list[str]:
        """One answer to each conversation, of at most `max_tokens` tokens, in order.

        A `NoAnswer` where there is none; a `CutOff` where it was longer.
        """

    def known(self, messages: Messages, max_tokens: int) -> str | None:
        """The answer that is on disk already, if there is one."""


@dataclass
class Usage:
    """What has been asked of a teacher since it was made."""

    calls: int = 0
    """Answers that arrived."""
    from_disk: int = 0
    """Answers that were there before."""
    retries: int = 0
    """Calls that failed and were made again."""
    prompt_tokens: int = 0
    """As the server counted them."""
    answer_tokens: int = 0
    unmetered: int = 0
    """Answers that came without a count of tokens."""
    notes: list[str] = field(default_factory=list)
    """What else there is to know, in sentences."""

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)
