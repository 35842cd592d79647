"""The page's languages: all words of one in one file, `strings/<language>.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT = "en"


@dataclass(frozen=True)
class Language:
    """One language: its tag, and its words as the templates and the scripts read them."""

    tag: str
    strings: Mapping[str, Any]

    def count(self, key: str, number: int) -> str:
        """`number` of something, in the right one of the two forms under `key`."""
        # French says "0 jeton", English "0 tokens"; the scripts ask Intl.PluralRules, which knows the same.
        one = number < 2 if self.tag == "fr" else number == 1
        form: str = self.strings[key]["one" if one else "other"]
        return form.replace("{n}", str(number))

    def decimal(self, number: float) -> str:
        """The number with one digit after the point, or the comma."""
        text = f"{number:.1f}"
        return text.replace(".", ",") if self.tag == "fr" else text


def load_languages(folder: Path) -> dict[str, Language]:
    """Every language of the folder, by tag; the default one first."""
    tags = sorted((path.stem for path in folder.glob("*.json")), key=lambda tag: (tag != DEFAULT, tag))
    return {tag: Language(tag, json.loads((folder / f"{tag}.json").read_text("utf-8"))) for tag in tags}


def choose_language(languages: Mapping[str, Language], asked: str | None, accept_language: str) -> Language:
    """The language that was asked for by name, else the reader's most wanted one, else the default."""
    if asked is not None and asked in languages:
        return languages[asked]
    for tag in _by_preference(accept_language):
        if tag in languages:
            return languages[tag]
    return languages[DEFAULT]


def _by_preference(accept_language: str) -> list[str]:
    """Primary language tags, most wanted first; what is malformed or refused (q=0) is left out."""
    weighted: list[tuple[float, str]] = []
    for entry in accept_language.split(","):
        tag, _, parameter = entry.strip().partition(";")
        _, _, quality = parameter.partition("q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        if weight > 0:
            weighted.append((weight, tag.strip().lower().split("-")[0]))
    return [tag for _, tag in sorted(weighted, key=lambda pair: -pair[0])]
