"""What a request becomes: events, in order, with nothing lost."""

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.inference.batch import generate
from functions.llm.inference.errors import InvalidOptionError, InvalidPromptError
from functions.llm.inference.generation import Done, Generation, GenerationRequest, Token
from functions.llm.inference.sampling import MAX_SEED, SamplingOptions
from functions.llm.inference.served_model import ServedModel
from functions.llm.tokenizers import ByteTokenizer, train_bpe

GREEDY = SamplingOptions(temperature=0.0)


def request(prompt="the raven", max_tokens=12, sampling=GREEDY, seed=7, **fields) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, max_tokens=max_tokens, sampling=sampling, seed=seed, **fields)


def run(model, asked) -> tuple[list[Token], Done]:
    *tokens, done = [event for batch in generate(Generation(model, asked)) for event in batch]
    assert all(isinstance(token, Token) for token in tokens)
    assert isinstance(done, Done)
    return tokens, done


def text(tokens) -> str:
    return "".join(token.text for token in tokens)


class TestTokens:
    def test_positions_follow_the_prompt(self, char_model):
        """Generated tokens are numbered from the prompt's length on; usage adds up."""
        tokens, done = run(char_model, request())
        assert [token.position for token in tokens] == list(range(9, 21))
        assert done == Done("length", 9, 12, 7, "tiny-char")

    @pytest.mark.parametrize("count", [1, 2, 5, 6, 21, 22, 40])
    def test_as_many_as_asked_for(self, char_model, count):
        """Whatever chunks are decoded, the client gets max_tokens tokens, and the same ones."""
        tokens, done = run(char_model, request(max_tokens=count, sampling=SamplingOptions()))
        longest, _ = run(char_model, request(max_tokens=40, sampling=SamplingOptions()))
        assert len(tokens) == done.completion_tokens == count
        assert tokens == longest[:count]

    def test_the_first_token_comes_alone(self, char_model):
        """The first batch that brings anything brings one token: nobody waits for a chunk."""
        batches = [batch for batch in generate(Generation(char_model, request(max_tokens=30))) if batch]
        assert [len(batch) for batch in batches] == [1, 4, 16, 9 + 1]

    @given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(0, MAX_SEED))
    @settings(max_examples=25)
    def test_texts_joined_are_the_decoded_tokens(self, byte_model, prompt, seed):
        """Of a model that speaks random bytes, prompt and output joined are decode(ids): nothing is lost."""
        tokens, _ = run(byte_model, request(tuple(prompt), 24, SamplingOptions(temperature=2.0), seed, echo=True))
        assert [token.id for token in tokens[: len(prompt)]] == prompt
        assert text(tokens) == byte_model.tokenizer.decode([token.id for token in tokens])

    def test_a_character_may_begin_in_the_prompt(self, reciter):
        """Prompt ids that end within a character are completed by the output."""
        raven = "🐦".encode()
        recite = reciter(ByteTokenizer(), dict(pairwise(raven)))
        tokens, _ = run(recite, request(tuple(raven[:2]), 2))
        assert text(tokens) == "🐦"

    def test_an_unfinished_character_is_shown_as_such(self, reciting):
        """The last token brings what is left: U+FFFD for half a character."""
        tokens, _ = run(reciting("aé"), request((0,), 2))
        assert [token.text for token in tokens] == ["a", "\ufffd"]

    @given(st.integers(0, MAX_SEED), st.integers(1, 39))
    @settings(max_examples=20)
    def test_a_text_may_be_cut_anywhere(self, char_model, seed, cut):
        """Asking again with the first tokens as part of the prompt, and the same seed, gives the rest of the text."""
        sampling = SamplingOptions(temperature=1.1, top_p=0.9, repetition_penalty=1.2)
        whole, _ = run(char_model, request((1, 2, 3), 40, sampling, seed))
        begun = (1, 2, 3, *(token.id for token in whole[:cut]))
        rest, _ = run(char_model, request(begun, 40 - cut, sampling, seed))
        assert rest == whole[cut:]

    def test_the_seed_decides(self, char_model):
        """Same seed same text, another seed another text."""
        hot = SamplingOptions(temperature=1.5)
        texts = [text(run(char_model, request(sampling=hot, seed=seed, max_tokens=30))[0]) for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]


class TestStops:
    def test_a_stop_string_ends_the_text_before_it(self, reciting):
        """It is not part of the text; the tokens that spell it are, with text held back."""
        tokens, done = run(reciting("abcdef"), request((0,), 20, stop=("de",)))
        assert [token.text for token in tokens] == ["a", "b", "c", "", ""]
        assert (done.finish_reason, done.completion_tokens) == ("stop", 5)

    def test_held_text_comes_when_it_turns_out_harmless(self, reciting):
        """'bcx' never comes, so 'bc' does, one token late."""
        tokens, done = run(reciting("abcdef"), request((0,), 6, stop=("bcx", "fg")))
        assert [token.text for token in tokens] == ["a", "", "", "bcd", "e", "f"]
        assert done.finish_reason == "length"

    def test_a_stop_token_ends_the_text_without_its_own(self, reciting):
        """What was held back comes with it; its own text does not."""
        asked = request((0,), 20, stop=("cdx",), stop_token_ids=frozenset({ord("e")}))
        tokens, done = run(reciting("abcdef"), asked)
        assert [token.text for token in tokens] == ["a", "b", "", "", "cd"]
        assert tokens[-1].id == ord("e")
        assert (done.finish_reason, done.completion_tokens) == ("stop", 5)

    def test_stop_strings_do_not_look_into_the_prompt(self, reciting):
        """An echoed prompt may hold one."""
        tokens, done = run(reciting("abc"), request("\0", 3, stop=("\0",), echo=True))
        assert text(tokens) == "\0abc"
        assert done.finish_reason == "length"

    def test_the_vocabularys_end_token_ends_unless_ignored(self, reciter):
        """BPE has <|endanswer|>; ignore_eos goes on and shows it."""
        bpe = train_bpe(["the raven and the raven"], 270)
        code, end = bpe.encode("t")[0], bpe.eos_id
        speaker = reciter(bpe, {code: end, end: code})
        ended, done = run(speaker, request((code,), 4))
        assert [(token.id, token.text) for token in ended] == [(end, "")]
        assert done.finish_reason == "stop"
        ignored, done = run(speaker, request((code,), 4, ignore_eos=True))
        assert text(ignored) == "<|endanswer|>t<|endanswer|>t"
        assert done.finish_reason == "length"


class TestEcho:
    def test_the_prompt_comes_first(self, char_model):
        """Positions from 0, and the same output as without."""
        plain, _ = run(char_model, request())
        echoed, done = run(char_model, request(echo=True))
        assert text(echoed[:9]) == "the raven"
        assert [token.position for token in echoed] == list(range(21))
        assert echoed[9:] == plain
        assert (done.prompt_tokens, done.completion_tokens) == (9, 12)

    def test_characters_that_the_model_does_not_know_are_echoed_as_sent(self, char_model):
        """It reads a space for each, and is said to; each has its own place."""
        tokens, _ = run(char_model, request("Où\r\n\u6f22.", echo=True, logprobs=0, max_tokens=2))
        assert [token.text for token in tokens[:6]] == ["O", "ù", "\r", "\n", "\u6f22", "."]
        assert [token.scores.raw for token in tokens[:6]] == [b" ", b" ", b" ", None, b" ", None]
        assert [token.scores.offset for token in tokens] == [None] * 8

    def test_logprobs_of_the_whole_text(self, char_model):
        """Nothing precedes the first token, so it has none; the others have those of one pass over the text."""
        tokens, _ = run(char_model, request(echo=True, logprobs=3))
        ids = [token.id for token in tokens]
        model = char_model.checkpoint.model
        logits, _ = model.scan(jnp.asarray([ids]), model.init_state(1))
        expected = np.asarray(jax.nn.log_softmax(logits[0]))
        assert tokens[0].scores.logprob is None
        assert tokens[0].scores.top == ()
        # Rounded to six digits for the wire.
        np.testing.assert_allclose(
            [token.scores.logprob for token in tokens[1:]], expected[np.arange(20), ids[1:]], atol=2e-5
        )
        for token, row in zip(tokens[1:], expected, strict=False):
            assert [alternative.id for alternative in token.scores.top] == np.argsort(-row, kind="stable")[:3].tolist()
            assert all(
                alternative.text == char_model.tokenizer.decode([alternative.id]) for alternative in token.scores.top
            )

    def test_logprobs_without_alternatives(self, char_model):
        """0 alternatives are no alternatives, and the token's own log-probability."""
        tokens, _ = run(char_model, request(logprobs=0, max_tokens=3))
        assert all(token.scores.top == () and token.scores.logprob < 0 for token in tokens)
        assert [replace(token, scores=None) for token in tokens] == run(char_model, request(max_tokens=3))[0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"max_tokens": 0}, "max_tokens"), ({"seed": -1}, "seed"), ({"seed": MAX_SEED + 1}, "seed"),
            ({"stop": ("a", "")}, "stop"), ({"logprobs": 21}, "logprobs"), ({"logprobs": -1}, "logprobs"),
        ],
    )  # fmt: skip
    def test_values_out_of_range(self, fields, field):
        """They never become a request."""
        with pytest.raises(InvalidOptionError, match=rf"^{field} "):
            request(**fields)

    @pytest.mark.parametrize("prompt", ["", ()])
    def test_nothing_to_go_on_from(self, prompt):
        """A text needs a first token."""
        with pytest.raises(InvalidPromptError, match="empty"):
            request(prompt)

    @pytest.mark.parametrize("prompt", [(32,), (0, -1), "a\ud800"])
    def test_prompts_that_the_model_cannot_read(self, char_model, prompt):
        """Ids outside the vocabulary, and text that is no Unicode."""
        with pytest.raises(InvalidPromptError, match=r"ids of tiny-char are 0 to 31|surrogate"):
            Generation(char_model, request(prompt))

    @pytest.mark.parametrize(
        "fields", [{"stop_token_ids": frozenset({32})}, {"sampling": SamplingOptions(logit_bias={32: 1.0})}]
    )
    def test_ids_outside_the_vocabulary(self, char_model, fields):
        """They are refused before anything is queued."""
        with pytest.raises(InvalidOptionError, match="ids are 0 to 31"):
            Generation(char_model, request(**fields))

    def test_a_model_of_nans_is_an_error_and_no_text(self, char_model):
        """Broken weights never become plausible tokens."""
        model = char_model.checkpoint.model
        broken = type(model)(model.config, {name: array * jnp.nan for name, array in model.params.items()})
        with pytest.raises(FloatingPointError, match="tiny-char gives nan"):
            run(ServedModel.of(replace(char_model.checkpoint, model=broken)), request())
