"""HTML in the reader's language, made of the templates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from starlette.requests import Request
from starlette.responses import HTMLResponse

from functions.frontend.languages import Language, choose_language
from functions.frontend.static_files import StaticFiles


class Markup:
    """The templates, with everything in them that does not change from request to request."""

    def __init__(self, folder: Path, static: StaticFiles, languages: Mapping[str, Language], **always: Any) -> None:
        """Find the templates; `load` compiles each, so that a mistake in it stops the start.

        What every template may ask for is in `always`.
        """
        self._languages = languages
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
        self._environment.globals.update(static=static.url, modules=static.modules, languages=languages, **always)

    def load(self, name: str, **always: Any) -> Template:
        """The template, for `respond`; what is the same in each rendering is given here."""
        return self._environment.get_template(name, globals=always)

    def respond(self, request: Request, template: Template, status: int = 200, **values: Any) -> HTMLResponse:
        """The page, in the language that the address asks for by `lang`, else in the browser's."""
        asked = request.query_params.get("lang")
        language = choose_language(self._languages, asked, request.headers.get("accept-language", ""))
        headers = {
            "content-language": language.tag,
            "vary": "accept-language",
            "cache-control": "private, no-cache" if request.method == "GET" else "no-store",
        }
        content = template.render(language=language, t=language.strings, **values)
        return HTMLResponse(content, status, headers)
