"""What is asked of a model, and the events that answer it."""

from dataclasses import dataclass, field
from typing import Literal

from functions.llm.inference.chat_template import Conversation
from functions.llm.inference.errors import InvalidOptionError, InvalidPromptError
from functions.llm.inference.programs import MAX_ALTERNATIVES
from functions.llm.inference.sampling import MAX_SEED, Sampler, SamplingOptions
from functions.llm.inference.served_model import ServedModel
from functions.llm.tokenizers import TokenizerError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What is asked for.

    Args:
        prompt: text, token ids, or a conversation.
        max_tokens: how many tokens to generate at most.
        sampling: how each is chosen.
        seed: of the draws, 0 to 2**63 - 1: with the same one the answer is the same.
        stop: strings that end the text, and are not part of it.
        stop_token_ids: tokens that end the text, and whose own text is not part of it.
        logprobs: how many alternatives to report at each token, 0 to 20; None reports no log-probability at all.
        echo: whether the prompt's tokens come first, with a text as it was sent.
        ignore_eos: whether to go on after the vocabulary's own end token.
    """

    prompt: str | tuple[int, ...] | Conversation
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
    """A token that might have stood here; `raw` is what it is made of where no text can say it, else None."""

    id: int
    text: str
    logprob: float
    raw: bytes | None = None


@dataclass(frozen=True)
class Scores:
    """What the model thought of a token.

    Args:
        logprob: by the model alone, before penalties and temperature; None for the very first token of a text.
        top: the likeliest tokens, likeliest first.
        raw: the token's own bytes where they are not those of its text: a part of a character, a mark, a text that is
            held back; else None.
        offset: where the token's own text begins in the text, in characters, unless the text of the tokens before it
            ends there: some of that is held back, or this token makes an end of half a character; else None.
    """

    logprob: float | None
    top: tuple[Alternative, ...]
    raw: bytes | None = None
    offset: int | None = None


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
        cached_prompt_tokens: tokens of the prompt whose state was there from an earlier request.
        cpu_seconds: what reading and drawing took; a dispatch's time is shared by its texts.
    """

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int
    model: str
    # Two equal answers need not have cost the same.
    cached_prompt_tokens: int = field(default=0, compare=False)
    cpu_seconds: float = field(default=0.0, compare=False)


Event = Token | Done


@dataclass(frozen=True)
class Generation:
    """A request that its model can answer: building one refuses everything that could be refused.

    Args:
        model: what is to answer.
        request: what is asked of it.
    """

    model: ServedModel
    request: GenerationRequest
    prompt: tuple[int, ...] = field(init=False)
    """The prompt's token ids."""
    sampler: Sampler = field(init=False)
    stop: tuple[str, ...] = field(init=False)
    """Strings that end the text: the request's, and those of the model's chat template."""
    end_ids: frozenset[int] = field(init=False)
    """Tokens that do, likewise."""

    def __post_init__(self) -> None:
        vocab_size = self.model.tokenizer.vocab_size
        object.__setattr__(self, "prompt", encoded_prompt(self.model, self.request.prompt))
        object.__setattr__(self, "stop", self.request.stop + self._template_stops())
        object.__setattr__(self, "end_ids", self.request.stop_token_ids | self._own_end_ids())
        for token_id in self.request.stop_token_ids:
            if not 0 <= token_id < vocab_size:
                raise InvalidOptionError(
                    "stop_token_ids", f"names the token id {token_id}; ids are 0 to {vocab_size - 1}."
                )
        object.__setattr__(self, "sampler", Sampler.from_options(self.request.sampling, self.request.seed, vocab_size))

    def _template_stops(self) -> tuple[str, ...]:
        return self.model.chat_template.stops if isinstance(self.request.prompt, Conversation) else ()

    def _own_end_ids(self) -> frozenset[int]:
        """Return the vocabulary's own end token, and in a conversation the one that its template ends a turn with."""
        if self.request.ignore_eos:
            return frozenset()
        tokenizer = self.model.tokenizer
        own = {tokenizer.eos_id}
        if isinstance(self.request.prompt, Conversation):
            own.add(tokenizer.special_tokens.get(self.model.chat_template.eos_token))
        return frozenset(token_id for token_id in own if token_id is not None)


def encoded_prompt(model: ServedModel, prompt: str | tuple[int, ...] | Conversation) -> tuple[int, ...]:
    """Return the token ids of a text, or of a conversation as the model's chat template writes it; or ids themselves.

    Raises:
        InvalidPromptError: there is no such text, nothing is left of it, or the vocabulary has no such id.
        InvalidOptionError: the conversation has what the template does not know.
    """
    if isinstance(prompt, tuple):
        for token_id in prompt:
            if not 0 <= token_id < model.tokenizer.vocab_size:
                raise InvalidPromptError(
                    f"prompt holds the token id {token_id}, and the ids of {model.name} are 0 to "
                    f"{model.tokenizer.vocab_size - 1}."
                )
        return prompt
    text = model.chat_template.render(prompt) if isinstance(prompt, Conversation) else prompt
    try:
        ids = tuple(model.tokenizer.encode(text))
    except TokenizerError as error:
        raise InvalidPromptError(f"prompt cannot be read: {error}.") from error
    if not ids:
        raise InvalidPromptError("prompt has no token; it holds nothing that this model's tokenizer keeps.")
    return ids
