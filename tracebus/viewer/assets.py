"""The files of the page: scripts, style, HTML."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Assets"]

FOLDER: Final = Path(__file__).parent / "static"
MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".woff2": "font/woff2",
}


class Asset(NamedTuple):
    """A file as it was read, with what it is known by."""

    stamp: tuple[int, int]
    body: bytes
    etag: str


class Assets:
    """Answers with the files that the folder had at the start. What is asked for is looked up, and never part of a path."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self._read: dict[str, Asset] = {}

    def __getitem__(self, name: str) -> Asset:
        """Return a file, read again if it has changed; raise KeyError for one that there is not."""
        path = self._paths[name]
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        asset = self._read.get(name)
        if asset is None or asset.stamp != stamp:
            body = path.read_bytes()
            asset = self._read[name] = Asset(stamp, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        return asset

    async def answer(self, request: Request) -> Response:
        """Answer with the file that the path names, or that it has not changed."""
        name = request.path_params["path"]
        try:
            asset = self[name]
        except (KeyError, FileNotFoundError):
            raise HTTPException(404) from None
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "")
        if known == "*" or asset.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, headers=headers, media_type=MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream"))
