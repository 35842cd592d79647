"""From token ids to the events of one answer: text, stop strings, scores, the end."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from functions.llm.array_types import Array
from functions.llm.inference.generation import Alternative, Done, Event, FinishReason, Generation, Scores, Token
from functions.llm.inference.programs import TokenBatch
from functions.llm.inference.stop_strings import StopMatcher
from functions.llm.tokenizers import StreamDecoder

# The tokens of a prompt that may hold the beginning of a character which the answer completes: UTF-8 has four bytes.
LONGEST_CHARACTER = 4


class Transcript:
    """What one answer has said so far."""

    def __init__(self, generation: Generation) -> None:
        self._model = generation.model
        self._request = generation.request
        self._prompt = generation.prompt
        self._text = StreamDecoder(self._model.tokenizer)
        self._told = 0
        # By how much what is told is longer than the text of its tokens: a prompt is echoed as it was sent.
        self._shift = 0
        self._matcher = StopMatcher(generation.stop)
        self._end_ids = generation.end_ids
        self.completion_tokens = 0
        self.cached_prompt_tokens = 0
        self.cpu_seconds = 0.0
        self.finished = False

    def begin(self) -> list[Event]:
        """Return the echo of the prompt's first token; without an echo, nothing.

        The tokens of a text that was sent have that between them, though what was read of it may be another: characters
        that the vocabulary lacks, or that its normalizer replaces.
        """
        if self._request.echo:
            scores = None if self._request.logprobs is None else Scores(None, ())
            return [self._echoed(0, scores)]
        prompt = StreamDecoder(self._model.tokenizer)
        for token_id in self._prompt[-LONGEST_CHARACTER:]:
            prompt.push(token_id)
        self._text = StreamDecoder(self._model.tokenizer, prompt.pending)
        return []

    def echo(self, start: int, end: int, scored: TokenBatch | None, row: int = 0) -> list[Event]:
        """Return the prompt's tokens from ``start`` to ``end``, if it is echoed; their scores begin the row."""
        if not self._request.echo:
            return []
        scores = self._scores(scored, row, end - start)
        return [self._echoed(position, score) for position, score in zip(range(start, end), scores, strict=True)]

    def generated(self, drawn: TokenBatch, row: int, start: int, count: int) -> list[Event]:
        """Return the tokens of a row from ``start`` to ``count``, and `Done` after the last of the answer.

        What a chunk holds beyond the end was drawn in vain, and is not shown.

        Raises:
            FloatingPointError: the model's weights are broken: a log-probability is no finite number.
        """
        logprobs = drawn.logprobs[row, start:count]
        if not np.isfinite(logprobs).all():
            broken = next(value for value in logprobs.tolist() if not np.isfinite(value))
            raise FloatingPointError(f"{self._model.name} gives {broken} as a log-probability")
        events: list[Event] = []
        scores = self._scores(drawn, row, count)[start:]
        position = len(self._prompt) + self.completion_tokens
        for token_id, score in zip(drawn.ids[row, start:count].tolist(), scores, strict=True):
            placed = self._placed(token_id, score)
            text, reason = self._said(token_id)
            events.append(self._token(position, token_id, text, placed))
            position += 1
            if reason is not None:
                self.finished = True
                events.append(self._done(reason))
                break
        return events

    def _done(self, reason: FinishReason) -> Done:
        return Done(
            reason,
            len(self._prompt),
            self.completion_tokens,
            self._request.seed,
            self._model.name,
            self.cached_prompt_tokens,
            self.cpu_seconds,
        )

    def _said(self, token_id: int) -> tuple[str, FinishReason | None]:
        """Return what a token adds to the text, and why it is the last one if it is."""
        self.completion_tokens += 1
        is_end = token_id in self._end_ids
        text = "" if is_end else self._matcher.push(self._text.push(token_id))
        if not (is_end or self._matcher.stopped or self.completion_tokens == self._request.max_tokens):
            return text, None
        text += self._matcher.push(self._text.flush()) + self._matcher.flush()
        return text, "stop" if is_end or self._matcher.stopped else "length"

    def _echoed(self, position: int, scores: Scores | None) -> Token:
        token_id = self._prompt[position]
        scores = self._placed(token_id, scores)
        text = read = self._text.push(token_id)
        if isinstance(self._request.prompt, str):
            # As many characters as were read, which is right for each token where one is read for one.
            is_last = position == len(self._prompt) - 1
            text = self._request.prompt[self._told : None if is_last else self._told + len(read)]
        self._shift += len(text) - len(read)
        return self._token(position, token_id, text, scores)

    def _placed(self, token_id: int, scores: Scores | None) -> Scores | None:
        """Return the scores of the next token with the place where its own text begins."""
        if scores is None or (place := self._shift + self._text.place_of(token_id)) == self._told:
            return scores
        return replace(scores, offset=place)

    def _token(self, position: int, token_id: int, text: str, scores: Scores | None) -> Token:
        if scores is not None and (raw := self._model.tokenizer.token_bytes(token_id)) != text.encode():
            scores = replace(scores, raw=raw)
        self._told += len(text)
        return Token(position, token_id, text, scores)

    def _scores(self, scored: TokenBatch | None, row: int, count: int) -> Sequence[Scores | None]:
        if self._request.logprobs is None or scored is None:
            return [None] * count
        alternatives = self._request.logprobs
        logprobs = _rounded(scored.logprobs[row, :count])
        if not alternatives:
            return [Scores(logprob, ()) for logprob in logprobs]
        tops = [
            tuple(map(self._alternative, ids.tolist(), _rounded(values)))
            for ids, values in zip(
                scored.top_ids[row, :count, :alternatives], scored.top_logprobs[row, :count, :alternatives], strict=True
            )
        ]
        return [Scores(logprob, top) for logprob, top in zip(logprobs, tops, strict=True)]

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        raw = self._model.tokenizer.token_bytes(token_id)
        text = raw.decode("utf-8", "replace")
        return Alternative(token_id, text, logprob, None if text.encode() == raw else raw)


def _rounded(logprobs: Array) -> list[float]:
    # float32 holds seven digits; the others would be noise on the wire. Adding 0.0 makes -0.0 a plain 0.0.
    return [round(logprob, 6) + 0.0 for logprob in logprobs.tolist()]
