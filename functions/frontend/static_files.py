"""The page's scripts, styles and icon: held in memory, addressed by what is in them."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"

_IMPORTED = re.compile(r'^import .*from "\./([\w.]+)";$', re.MULTILINE)


@dataclass(frozen=True)
class StaticFile:
    """One file, ready to be sent."""

    content: bytes
    content_type: str
    etag: str


class StaticFiles:
    """The files of one folder under `/static/<digest of them all>/<name>`.

    One digest for the folder, and not one per file, so that modules import each other by plain relative names and a
    page never mixes modules of two releases.
    """

    def __init__(self, folder: Path) -> None:
        """Read the folder, once. A file of a type that is not known here is a mistake, and stops the start."""
        self._files: dict[str, StaticFile] = {}
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            self._files[path.name] = StaticFile(content, CONTENT_TYPES[path.suffix], etag)
            digest.update(f"{path.name}\0{etag}\0".encode())
        self.digest = digest.hexdigest()[:16]

    def modules(self, entry: str) -> list[str]:
        """The ES modules that `entry` imports, directly or through others, by name."""
        found: dict[str, None] = {}
        waiting = [entry]
        while waiting:
            text = self._files[waiting.pop()].content.decode()
            imported = [name for name in _IMPORTED.findall(text) if name not in found]
            found |= dict.fromkeys(imported)
            waiting += imported
        return sorted(found)

    def url(self, name: str) -> str:
        """Where the file is, as long as its content stays the same."""
        if name not in self._files:
            raise KeyError(f"static/ has {', '.join(self._files)}; the page asks for {name}")
        return f"/static/{self.digest}/{name}"

    def build_router(self) -> APIRouter:
        """The route that serves them."""
        router = APIRouter()

        @router.api_route("/static/{digest}/{name}", methods=["GET", "HEAD"])
        async def static_file(digest: str, name: str, request: Request) -> Response:
            file = self._files.get(name)
            if file is None:
                raise HTTPException(404)
            # A page of another release may ask under its own digest: it gets what there is, but must ask again.
            headers = {"etag": file.etag, "cache-control": IMMUTABLE if digest == self.digest else REVALIDATE}
            known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
            if file.etag in known or "*" in known:
                return Response(status_code=304, headers=headers)
            return Response(file.content, headers={**headers, "content-type": file.content_type})

        return router
