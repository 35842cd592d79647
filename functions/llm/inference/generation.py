"""A request and a checkpoint: the events that answer it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.inference.decoder import MAX_ALTERNATIVES, MAX_CHUNK, DecodedTokens, Decoder, prefill_spans
from functions.llm.inference.errors import InvalidOptionError, InvalidPromptError
from functions.llm.inference.sampling import MAX_SEED, Sampler, SamplingOptions
from functions.llm.inference.stop_strings import StopMatcher
from functions.llm.tokenizers import StreamDecoder, TokenizerError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What is asked for.

    Args:
        prompt: text, or token ids.
        max_tokens: how many tokens to generate at most.
        sampling: how each is chosen.
        seed: of the draws, 0 to 2**63 - 1: with the same one the answer is the same.
        stop: strings that end the text, and are not part of it.
        stop_token_ids: tokens that end the text, and whose own text is not part of it.
        logprobs: how many alternatives to report at each token, 0 to 20; None reports no log-probability at all.
        echo: whether the prompt's tokens come first.
        ignore_eos: whether to go on after the vocabulary's own end token.
    """

    prompt: str | tuple[int, ...]
    max_tokens: int
    sampling: SamplingOptions
    seed: int
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    echo: bool = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InvalidPromptError("prompt is empty; it needs at least one character or token to go on from.")
        if self.max_tokens < 1:
            raise InvalidOptionError("max_tokens", f"is {self.max_tokens}; it must be at least 1.")
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidOptionError("seed", f"is {self.seed}; it must be 0 to {MAX_SEED}.")
        if "" in self.stop:
            raise InvalidOptionError("stop", "has an empty string, which would end every text before it begins.")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_ALTERNATIVES:
            raise InvalidOptionError("logprobs", f"is {self.logprobs}; it must be 0 to {MAX_ALTERNATIVES}, or null.")


@dataclass(frozen=True)
class Alternative:
    """A token that might have stood here."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Scores:
    """What the model thought of a token.

    Args:
        logprob: by the model alone, before penalties and temperature; None for the very first token of a text.
        top: the likeliest tokens, likeliest first.
    """

    logprob: float | None
    top: tuple[Alternative, ...]


@dataclass(frozen=True)
class Token:
    """One more token.

    Args:
        position: in the whole sequence, the prompt's first token being 0.
        id: its id.
        text: what it adds to the text: nothing while a character is incomplete or a stop string may be beginning.
        scores: None unless they were asked for.
    """

    position: int
    id: int
    text: str
    scores: Scores | None = None


@dataclass(frozen=True)
class Done:
    """The end of the answer.

    Args:
        finish_reason: "stop" at a stop string or an end token, "length" at max_tokens.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens generated.
        seed: with which the same request gives the same answer.
        model: the checkpoint's name.
    """

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int
    model: str


Event = Token | Done


@dataclass(frozen=True)
class Generation:
    """A request that its model can answer: building one refuses everything that could be refused.

    Args:
        checkpoint: the model.
        request: what is asked of it.
    """

    checkpoint: Checkpoint
    request: GenerationRequest
    prompt: tuple[int, ...] = field(init=False)
    """The prompt's token ids."""
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        vocab_size = self.checkpoint.tokenizer.vocab_size
        object.__setattr__(self, "prompt", self._encoded_prompt())
        for token_id in self.request.stop_token_ids:
            if not 0 <= token_id < vocab_size:
                raise InvalidOptionError(
                    "stop_token_ids", f"names the token id {token_id}; ids are 0 to {vocab_size - 1}."
                )
        object.__setattr__(self, "sampler", Sampler.from_options(self.request.sampling, self.request.seed, vocab_size))

    def events(self) -> Iterator[list[Event]]:
        """Do one piece of work at a time and return what it brought, perhaps nothing; `Done` comes last."""
        return _Run(self).events()

    def _encoded_prompt(self) -> tuple[int, ...]:
        tokenizer, prompt = self.checkpoint.tokenizer, self.request.prompt
        if isinstance(prompt, str):
            try:
                ids = tuple(tokenizer.encode(prompt))
            except TokenizerError as error:
                raise InvalidPromptError(f"prompt cannot be read: {error}.") from error
            if not ids:
                raise InvalidPromptError("prompt has no token; it holds nothing that this model's tokenizer keeps.")
            return ids
        for token_id in prompt:
            if not 0 <= token_id < tokenizer.vocab_size:
                raise InvalidPromptError(
                    f"prompt holds the token id {token_id}, and the ids of {self.checkpoint.name} are 0 to "
                    f"{tokenizer.vocab_size - 1}."
                )
        return prompt


class _Run:
    """A generation under way."""

    def __init__(self, generation: Generation) -> None:
        self._checkpoint = generation.checkpoint
        self._request = generation.request
        self._prompt = generation.prompt
        with_alternatives = bool(self._request.logprobs)
        self._decoder = Decoder(
            self._checkpoint.model, self._prompt, generation.sampler, alternatives=with_alternatives
        )
        self._tokenizer = self._checkpoint.tokenizer
        self._text = StreamDecoder(self._tokenizer)
        self._matcher = StopMatcher(self._request.stop)
        eos_id = None if self._request.ignore_eos else self._tokenizer.eos_id
        self._end_ids = self._request.stop_token_ids | ({eos_id} if eos_id is not None else set())
        self._completion_tokens = 0

    def events(self) -> Iterator[list[Event]]:
        yield from self._prompt_events()
        reason: FinishReason | None = None
        while reason is None:
            decoded = self._decoder.decode(self._chunk_size())
            events: list[Event] = []
            # What a chunk holds beyond the end was drawn in vain, and is not shown.
            while reason is None and len(events) < len(decoded.ids):
                token, reason = self._generated(decoded, len(events))
                events.append(token)
            if reason is not None:
                events.append(
                    Done(reason, len(self._prompt), self._completion_tokens, self._request.seed, self._checkpoint.name)
                )
            yield events

    def _chunk_size(self) -> int:
        # The first token goes out alone, the next come soon, and then one dispatch serves as many as it can.
        size = {0: 1, 1: 4}.get(self._completion_tokens, MAX_CHUNK)
        return min(size, self._request.max_tokens - self._completion_tokens)

    def _prompt_events(self) -> Iterator[list[Event]]:
        if self._request.echo:
            yield from self._echoed()
            return
        # A prompt of ids may end within a character, which the first tokens complete; 4 tokens have its every byte.
        for token_id in self._prompt[-4:]:
            self._text.push(token_id)
        for _ in self._decoder.prefill():
            yield []

    def _echoed(self) -> Iterator[list[Event]]:
        unscored = None if self._request.logprobs is None else Scores(None, ())
        yield [Token(0, self._prompt[0], self._text.push(self._prompt[0]), unscored)]
        if self._request.logprobs is None:
            spans = prefill_spans(len(self._prompt) - 1)
            for (start, end), _ in zip(spans, self._decoder.prefill(), strict=True):
                yield [Token(i, self._prompt[i], self._text.push(self._prompt[i])) for i in range(start + 1, end + 1)]
            return
        position = 1
        for scored in self._decoder.prefill_with_logprobs():
            yield [
                Token(position + index, token_id, self._text.push(token_id), self._scores(scored, index))
                for index, token_id in enumerate(scored.ids)
            ]
            position += len(scored.ids)

    def _generated(self, decoded: DecodedTokens, index: int) -> tuple[Token, FinishReason | None]:
        """Return the next token, and why it is the last one if it is."""
        token_id = decoded.ids[index]
        if not math.isfinite(decoded.logprobs[index]):
            raise FloatingPointError(f"{self._checkpoint.name} gives {decoded.logprobs[index]} as a log-probability")
        self._completion_tokens += 1
        is_end = token_id in self._end_ids
        text = "" if is_end else self._matcher.push(self._text.push(token_id))
        reason: FinishReason | None = None
        if is_end or self._matcher.stopped or self._completion_tokens == self._request.max_tokens:
            text += self._matcher.push(self._text.flush()) + self._matcher.flush()
            reason = "stop" if is_end or self._matcher.stopped else "length"
        position = len(self._prompt) + self._completion_tokens - 1
        return Token(position, token_id, text, self._scores(decoded, index)), reason

    def _scores(self, decoded: DecodedTokens, index: int) -> Scores | None:
        if self._request.logprobs is None:
            return None
        alternatives = zip(decoded.top_ids[index], decoded.top_logprobs[index], strict=True)
        top = tuple(
            Alternative(token_id, self._tokenizer.token_bytes(token_id).decode("utf-8", "replace"), _rounded(logprob))
            for token_id, logprob in list(alternatives)[: self._request.logprobs]
        )
        return Scores(_rounded(decoded.logprobs[index]), top)


def _rounded(logprob: float) -> float:
    # float32 holds seven digits; the others would be noise on the wire. Adding 0.0 makes -0.0 a plain 0.0.
    return round(logprob, 6) + 0.0
