"""A teacher on this machine: any chat model of `transformers`, asked greedily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checked import COUNT, check_number
from ..data.chat import Piece, Turn, opened_thought, write_chat
from ..data.prompts import encode_prompt
from ..files import sha256_json
from ..teacher.calls import CallCache, is_answer, plain
from ..teacher.teachers import Messages, NoAnswer, TeacherError, Usage
from .generation import context_length, end_tokens, generate_greedily, until_end, written_text

if TYPE_CHECKING:
    from .backbone import Student


class LocalTeacher:
    """A chat model on this machine, answering greedily in batches.

    Args:
        student: what `backbone.load_student` gives; its tokenizer needs a chat template.
        batch_size: conversations at a time.
        folder: where answers are kept, see `CallCache`.

    Raises:
        ValueError: the model has no chat template, or `batch_size` is below 1.
    """

    sampling = "greedy"
    is_local = True

    def __init__(self, student: Student, *, batch_size: int = 8, folder: str | Path | None = None) -> None:
        check_number("batch_size", batch_size, COUNT)
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

        Returns:
            The answers; a `CutOff` where one was longer, a `NoAnswer` where the model wrote none. That is not kept.

        Raises:
            TeacherError: a conversation does not fit into the model's context.
            ValueError: `max_tokens` below 1.
        """
        from tqdm.auto import tqdm

        check_number("max_tokens", max_tokens, COUNT)
        requests = [self._request(messages, max_tokens) for messages in conversations]
        new = list({sha256_json(r): r for r in requests if self.cache.get(r) is None}.values())
        self.usage.from_disk += len(requests) - len(new)
        rows = sorted(((self._encode(r), r) for r in new), key=lambda row: -len(row[0]))
        limit = context_length(self.student.model)
        if rows and limit is not None and len(rows[0][0]) + max_tokens > limit:
            raise TeacherError(
                f"{self.name}: a conversation of {len(rows[0][0])} tokens and an answer of {max_tokens} do not fit "
                f"into its context of {limit}. Ask about fewer sessions at a time, or choose a model with a longer one."
            )
        done, empty = len(requests) - len(new), {}
        with tqdm(total=len(requests), initial=done, unit="call", desc="asking", disable=not progress) as bar:
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                empty |= self._answer([ids for ids, _ in batch], [request for _, request in batch], max_tokens)
                bar.update(len(batch))
        keyed = [(sha256_json(request), request) for request in requests]
        return [empty[key] if key in empty else self.cache.get(request) for key, request in keyed]

    def _request(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        turns = [{**turn, "content": plain(turn["content"])} for turn in messages]
        return {"model": self.name, "messages": turns, "max_tokens": max_tokens}

    def _encode(self, request: Mapping[str, Any]) -> list[int]:
        turns = [Turn(message["role"], [Piece(message["content"])]) for message in request["messages"]]
        return encode_prompt(write_chat(self.student.tokenizer, turns), self.student.tokenizer)

    def _answer(
        self, prompts: list[list[int]], requests: list[Mapping[str, Any]], max_tokens: int
    ) -> dict[str, NoAnswer]:
        """Generate the answers of one batch and store them; returns those that are none, by hash of the request."""
        import torch

        model, tokenizer, _ = self.student
        ends, begun, empty = end_tokens(model, tokenizer), opened_thought(tokenizer), {}
        with torch.inference_mode():
            output = generate_greedily(model, tokenizer, prompts, max_tokens).tolist()
        for ids, request, tokens in zip(prompts, requests, output, strict=True):
            written = until_end(tokens, ends)
            used = {"prompt_tokens": len(ids), "completion_tokens": len(written)}
            answer = (begun + written_text(written, tokenizer, ends)).strip()
            ended = bool(written) and written[-1] in ends
            self.cache.put(request, answer, usage=used, finish="stop" if ended else "length")
            if not is_answer(answer):
                why = "the answer is empty, or a thought alone" if ended else "it was cut off before the answer began"
                empty[sha256_json(request)] = NoAnswer(why)
            self.usage.calls += 1
            self.usage.prompt_tokens += used["prompt_tokens"]
            self.usage.answer_tokens += used["completion_tokens"]
        return empty
