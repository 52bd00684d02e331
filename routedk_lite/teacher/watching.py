"""A watch on the model behind an endpoint: an answer counts only if it comes from the one that is served now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from .sending import Sender, TryAgainError
from .served import Served, describe, is_telling, same_model
from .teachers import TeacherError


class Watch:
    """What is known of the model that is served now.

    Args:
        sender: reaches the endpoint.
        strict: go by what replies say of themselves too, as `served.same_model` does: where answers cost nothing.
    """

    def __init__(self, sender: Sender, *, strict: bool) -> None:
        self.sender, self.strict = sender, strict
        self.now: Served = {}
        self._looked = self._fickle = False

    def look(self, *, probe: bool = False) -> None:
        """Find out what is served now.

        Args:
            probe: where answers cost nothing and the list of models leaves it open, let the model say one word.
        """
        listed = self.sender.look()
        self.now, self._looked = listed or {}, True
        self._fickle = False
        if probe and self.strict and listed is not None and not is_telling(listed, self.sender.model):
            with suppress(TryAgainError, TeacherError):
                reply, _ = self.sender.send([{"role": "user", "content": "Hello"}], {"max_tokens": 1})
                self.now |= reply.served

    def has_changed(self) -> bool:
        """Look again, and say whether the list of models tells of another model than before."""
        before = self.now.get("listed")
        if not is_telling(self.now, self.sender.model):
            return False
        self.look()
        return self.now.get("listed", before) != before

    def heard(self, served: Served) -> Served:
        """Take in what a reply says of its model.

        Returns:
            All that is known of the model that gave it.
        """
        before = self.now.get("fingerprint", served.get("fingerprint"))
        if before != served.get("fingerprint") and self.now.get("model") == served.get("model"):
            self._fickle = True  # some servers give every reply another one: it tells nothing of the model then
        now = {**self.now, **served}
        if self._fickle:
            now.pop("fingerprint", None)
        self.now = now
        return {name: self.now[name] for name in ("listed", "created") if name in self.now} | served

    def current(self, records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The stored answers that come from the model that is served now, as far as anybody says."""
        records = list(records)
        if records and not self._looked:
            self.look()
        return [record for record in records if same_model(record, self.now, strict=self.strict)]

    def described(self, served: Served) -> str:
        """A model in words."""
        return describe(served, strict=self.strict) or "a model that it does not name"
