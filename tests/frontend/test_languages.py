"""The page speaks the reader's language, in whole sentences."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.frontend.app import HERE
from functions.frontend.form import CONTROLS
from functions.frontend.languages import choose_language, load_languages

LANGUAGES = load_languages(HERE / "strings")


@pytest.mark.parametrize(
    ("asked", "accepted", "chosen"),
    [
        (None, "", "en"),
        (None, "fr", "fr"),
        (None, "fr-CA,fr;q=0.9,en;q=0.5", "fr"),
        (None, "en;q=0.4, FR-be;q=0.8", "fr"),
        (None, "de, fr;q=0.2", "fr"),
        (None, "de", "en"),
        (None, "fr;q=0", "en"),
        (None, "fr;q=much", "en"),
        ("en", "fr", "en"),
        ("fr", "en", "fr"),
        ("xx", "fr", "fr"),
    ],
)
def test_the_most_wanted_language_is_chosen(asked, accepted, chosen):
    """A name in the address first, then the browser's list by weight, then English."""
    assert choose_language(LANGUAGES, asked, accepted).tag == chosen


@given(st.text())
def test_no_header_is_too_odd(header):
    """Whatever a client sends, there is a language."""
    assert choose_language(LANGUAGES, None, header).tag in LANGUAGES


def _leaves(value, path=()):
    if isinstance(value, dict):
        return {key: text for name, inner in value.items() for key, text in _leaves(inner, (*path, name)).items()}
    return {path: value}


def test_the_languages_say_the_same_things():
    """The same keys, with the same places to fill in, and each in words of its own."""
    english, french = (_leaves(LANGUAGES[tag].strings) for tag in ("en", "fr"))
    assert english.keys() == french.keys()
    for key, text in english.items():
        assert re.findall(r"\{\w+\}", text) == re.findall(r"\{\w+\}", french[key]), key
    # What may be alike are proper names and signs.
    alike = {key for key, text in english.items() if text == french[key] and text}
    units = {(unit,) for unit in ("seconds", "milliseconds", "hours", "minutes", "joules")}
    assert alike == {
        *units,
        ("status_view", "axis", "minutes"),
        *(("controls", name, "label") for name in ("top_p", "min_p", "top_k")),
    }


def test_every_control_has_a_name_and_help():
    """So does whatever is added to the form."""
    for language in LANGUAGES.values():
        for control in CONTROLS:
            assert language.strings["controls"][control.name]["label"]
            assert language.strings["controls"][control.name]["help"]


def test_the_scripts_and_templates_ask_only_for_words_that_exist():
    """A mistyped key would show as "undefined"."""
    known = {".".join(path[:depth]) for path in _leaves(LANGUAGES["en"].strings) for depth in (1, 2)}
    asked = {
        f"{first}.{second}" if second and second not in {"get", "replace"} else first
        for path in [*(HERE / "static").glob("*.js"), *(HERE / "templates").glob("*.html")]
        for first, second in re.findall(r"(?<![\w.])(?:strings|t)\.(\w+)(?:\.(\w+))?", path.read_text("utf-8"))
    }
    assert len(asked) > 30
    # `controls[name].label` and the like are looked up by name; the test above has them.
    assert asked - known == set()


def test_numbers_are_written_as_the_language_writes_them():
    """Three digits that count, thousands apart, and the unit that suits."""
    said = {
        tag: [
            language.whole(11408), language.figure(0.04567), language.figure(101.2), language.figure(0.0000449),
            language.duration(0.0123), language.duration(0.99951), language.duration(75), language.age(59),
            language.age(3720), language.age(90_061), language.megabytes(312_400_000), language.percent(0.627),
            language.energy(15.52),
        ]
        for tag, language in LANGUAGES.items()
    }  # fmt: skip
    assert said["en"] == [
        "11,408", "0.0457", "101", "0", "12.3 ms", "1 s", "75 s", "59 s", "1 h 2 min", "1 d 1 h", "312 MB", "63%",
        "15.5 J",
    ]  # fmt: skip
    assert said["fr"] == [
        "11\u202f408", "0,0457", "101", "0", "12,3 ms", "1 s", "75 s", "59 s", "1 h 2 min", "1 j 1 h", "312 Mo",
        "63 %", "15,5 J",
    ]  # fmt: skip


def test_counts_agree_with_their_number():
    """Zero is plural in English and singular in French."""
    assert [LANGUAGES["en"].count("tokens", n) for n in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]
    assert [LANGUAGES["fr"].count("tokens", n) for n in (0, 1, 2)] == ["0 jeton", "1 jeton", "2 jetons"]
