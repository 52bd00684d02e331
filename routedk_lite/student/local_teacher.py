"""A teacher on this machine: any chat model of `transformers`, asked greedily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.chat import Piece, Turn, opened_thought, write_chat
from ..data.prompts import encode_prompt
from ..files import sha256_json
from ..teacher.endpoint import CallCache, Messages, TeacherError, Usage
from .generation import end_tokens, generate_greedily, until_end, written_text

if TYPE_CHECKING:
    from .backbone import Student


class LocalTeacher:
    """A chat model on this machine, answering greedily in batches.

    Args:
        student: what `backbone.load_student` gives; its tokenizer needs a chat template.
        batch_size: conversations at a time.
        folder: where answers are kept, see `CallCache`.

    Raises:
        ValueError: the model has no chat template.
    """

    sampling = "greedy"
    is_local = True

    def __init__(self, student: Student, *, batch_size: int = 8, folder: str | Path | None = None) -> None:
        if not student.tokenizer.chat_template:
            raise ValueError(f"model = {student.info.id!r} has no chat template: choose an instruct model as a teacher")
        self.student, self.batch_size, self.cache = student, batch_size, CallCache(folder)
        self.name = f"{student.info.id} ({student.info.dtype}, sha256 {student.info.sha256[:12]})"
        self.usage = Usage()

    def known(self, messages: Messages, max_tokens: int) -> str | None:
        """The answer that is on disk already, if there is one."""
        return self.cache.get(self._request(messages, max_tokens))

    def ask(self, conversations: Sequence[Messages], *, max_tokens: int, progress: bool = True) -> list[str]:
        """One answer to each conversation, in order; only what is not on disk is generated, longest prompt first.

        Raises:
            TeacherError: a conversation does not fit into the model's context.
        """
        from tqdm.auto import tqdm

        requests = [self._request(messages, max_tokens) for messages in conversations]
        new = list({sha256_json(r): r for r in requests if self.cache.get(r) is None}.values())
        self.usage.from_disk += len(requests) - len(new)
        rows = sorted(((self._encode(r), r) for r in new), key=lambda row: -len(row[0]))
        limit = self.student.model.config.max_position_embeddings
        if rows and len(rows[0][0]) + max_tokens > limit:
            raise TeacherError(
                f"{self.name}: a conversation of {len(rows[0][0])} tokens and an answer of {max_tokens} do not fit "
                f"into its context of {limit}. Ask about fewer sessions at a time, or choose a model with a longer one."
            )
        done = len(requests) - len(new)
        with tqdm(total=len(requests), initial=done, unit="call", desc="asking", disable=not progress) as bar:
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                self._answer([ids for ids, _ in batch], [request for _, request in batch], max_tokens)
                bar.update(len(batch))
        return [self.cache.get(request) for request in requests]

    def _request(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        return {"model": self.name, "messages": messages, "max_tokens": max_tokens}

    def _encode(self, request: Mapping[str, Any]) -> list[int]:
        turns = [Turn(message["role"], [Piece(message["content"])]) for message in request["messages"]]
        return encode_prompt(write_chat(self.student.tokenizer, turns), self.student.tokenizer)

    def _answer(self, prompts: list[list[int]], requests: list[Mapping[str, Any]], max_tokens: int) -> None:
        """Generate the answers of one batch and store them."""
        import torch

        model, tokenizer, _ = self.student
        ends, begun = end_tokens(model, tokenizer), opened_thought(tokenizer)
        with torch.inference_mode():
            output = generate_greedily(model, tokenizer, prompts, max_tokens).tolist()
        for ids, request, tokens in zip(prompts, requests, output, strict=True):
            written = until_end(tokens, ends)
            used = {"prompt_tokens": len(ids), "completion_tokens": len(written)}
            self.cache.put(request, (begun + written_text(written, tokenizer, ends)).strip(), usage=used)
            self.usage.calls += 1
            self.usage.prompt_tokens += used["prompt_tokens"]
            self.usage.answer_tokens += used["completion_tokens"]
