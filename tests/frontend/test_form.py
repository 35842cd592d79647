"""A filled form stands for one request, and says no in words to what is none."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.frontend.errors import RefusedError
from functions.frontend.form import DEFAULTS, FORM_TYPE, parse_form, parse_stop, request_from_form


def test_a_form_left_as_it_is_asks_for_the_apis_own_defaults():
    """What the page shows at first is what a request without these fields means."""
    assert request_from_form({**DEFAULTS, "prompt": "a"}) == {
        "prompt": "a", "temperature": 0.8, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "repetition_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "penalty_decay": 1.0, "max_tokens": 256,
    }  # fmt: skip


def test_what_is_typed_is_what_is_asked():
    """Each control under its name and in its type; a seed in all its digits."""
    fields = {
        "prompt": "a", "seed": " 9223372036854775807 ", "top_k": "-3", "temperature": ".5", "max_tokens": "",
        "stop": "END\n\n\\n\\n\n a\\\\n", "model": "crow",
    }  # fmt: skip
    assert request_from_form(fields) == {
        "prompt": "a", "seed": 9223372036854775807, "top_k": -3, "temperature": 0.5,
        "stop": ["END", "\n\n", " a\\n"], "model": "crow",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [("top_k", "1.5"), ("top_k", "1_0"), ("top_k", "١"), ("temperature", "nan"), ("temperature", "inf"),
     ("temperature", "0,8"), ("temperature", "warm"), ("seed", "1e3"), ("max_tokens", "9" * 5000)],
)  # fmt: skip
def test_a_number_that_is_none_is_refused_by_name(name, text):
    """422, as the API itself says it."""
    with pytest.raises(RefusedError) as refused:
        request_from_form({"prompt": "a", name: text})
    assert refused.value.status == 422
    assert (refused.value.error.code, refused.value.error.field) == ("invalid_request", name)
    assert len(str(refused.value)) < 200


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.text(st.characters(exclude_categories=["Cs"]))))
def test_reading_a_form_undoes_a_browsers_writing(fields):
    """Any text survives the way here, but for line ends, which come as CRLF and become what was typed."""
    sent = {name: value.replace("\r", "").replace("\n", "\r\n") for name, value in fields.items()}
    read = parse_form(urlencode(sent).encode(), f"{FORM_TYPE}; charset=UTF-8")
    assert read == {name: value.replace("\r", "") for name, value in fields.items()}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"prompt=a", "multipart/form-data; boundary=x", 415),
        (b"prompt=a", "", 415),
        (b"prompt=%ff", FORM_TYPE, 400),
        (b"prompt=\xff", FORM_TYPE, 400),
        (b"prompt=a&password=b", FORM_TYPE, 400),
        (b"a=&" * 100_000, FORM_TYPE, 400),
        (b"a" * 100_000 + b"=", FORM_TYPE, 400),
        (b"prompt=a", "a" * 10_000, 415),
    ],
)
def test_what_is_no_form_of_this_page_is_refused(body, content_type, status):
    """In words, and before anything is asked of the backend."""
    with pytest.raises(RefusedError) as refused:
        parse_form(body, content_type)
    assert refused.value.status == status
    assert len(str(refused.value)) < 200


def test_no_stop_string_is_empty():
    """An empty one would end every text at once; the API refuses it."""
    assert parse_stop("") == parse_stop("\n\n") == []
