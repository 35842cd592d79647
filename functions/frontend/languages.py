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
        return self._localised(f"{number:.1f}")

    def whole(self, number: float) -> str:
        """The number without fraction, its thousands apart."""
        return self._localised(f"{number:,.0f}")

    def figure(self, number: float) -> str:
        """The number in three digits that count, as `figure` of static/words.js writes it."""
        if number >= 99.95:
            return self.whole(number)
        text = f"{number:.3g}"
        # "1e-05" is no way to say it to readers.
        return self._localised(text if "e" not in text else f"{number:.3f}".rstrip("0").rstrip("."))

    def duration(self, seconds: float) -> str:
        """A short time: milliseconds below a second."""
        unit, number = ("seconds", seconds) if seconds >= 0.9995 else ("milliseconds", seconds * 1000)
        return self._with_unit(unit, self.figure(number))

    def age(self, seconds: float) -> str:
        """A long time in its two largest units; seconds below two minutes."""
        if seconds < 120:
            return self._with_unit("seconds", str(int(seconds)))
        minutes = int(seconds // 60)
        parts = [("days", minutes // 1440), ("hours", minutes // 60 % 24), ("minutes", minutes % 60)]
        while len(parts) > 1 and not parts[0][1]:
            parts.pop(0)
        shown = [parts[0], *(part for part in parts[1:2] if part[1])]
        return " ".join(self._with_unit(unit, str(number)) for unit, number in shown)

    def wait(self, seconds: int) -> str:
        """How long somebody has to wait, rounded up."""
        return self.age(seconds if seconds < 120 else -(-seconds // 60) * 60)

    def megabytes(self, size: int) -> str:
        """A size in memory."""
        return self._with_unit("megabytes", self.figure(size / 1e6))

    def energy(self, joules: float) -> str:
        """Joules."""
        return self._with_unit("joules", self.figure(joules))

    def percent(self, share: float) -> str:
        """A share of one."""
        return self._with_unit("percent", self.whole(share * 100))

    def _with_unit(self, unit: str, number: str) -> str:
        text: str = self.strings[unit]
        return text.replace("{n}", number)

    def _localised(self, text: str) -> str:
        # The space between thousands is narrow, and no line breaks at it: as Intl.NumberFormat has it.
        return text.replace(",", "\u202f").replace(".", ",") if self.tag == "fr" else text


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
