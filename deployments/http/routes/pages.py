"""Routes of the web page: static files of deployments/web, which need no key."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from core.errors import NotFound
from deployments.http.requests import services
from deployments.http.routes.images import matches

FOLDER = Path(__file__).parents[2] / "web"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file; its weak `etag` covers the plain and the compressed bytes."""

    data: bytes
    gzipped: bytes
    media_type: str
    etag: str


def read_web_files(folder: Path = FOLDER) -> dict[str, WebFile]:
    """Read the page's files by their paths below the folder; other files are left out."""
    return {
        path.relative_to(folder).as_posix(): _read(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


def _read(path: Path) -> WebFile:
    data = path.read_bytes()
    etag = f'W/"{hashlib.sha256(data).hexdigest()[:32]}"'
    return WebFile(data, gzip.compress(data, mtime=0), MEDIA_TYPES[path.suffix], etag)


router = APIRouter(include_in_schema=False)
_FILES = read_web_files()
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    # Validated at each use, so that no browser mixes the files of two releases; the tag makes that cheap.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/")
async def search_page(request: Request) -> Response:
    """Return the search page."""
    return _answer(request, _FILES["index.html"])


@router.get("/operations")
async def operations_page(request: Request) -> Response:
    """Return the operations page."""
    return _answer(request, _FILES["operations.html"])


@router.get("/v1/openapi.json")
def openapi_document(request: Request) -> JSONResponse:
    """Return the OpenAPI document; in a thread, as no `async` function."""
    return JSONResponse(request.app.openapi())


@router.get("/web/settings.json")
async def page_settings(request: Request) -> JSONResponse:
    """Return what the search page shows of a product."""
    return JSONResponse(services(request).page.model_dump(mode="json"), headers=_HEADERS)


@router.get("/web/{path:path}")
async def web_file(path: str, request: Request) -> Response:
    """Return a style, a script or a drawing of the pages."""
    if path not in _FILES:
        raise NotFound(f"there is no file {path!r:.100}")
    return _answer(request, _FILES[path])


def _answer(request: Request, file: WebFile) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if matches(request, file.etag):
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.data, media_type=file.media_type, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(file.gzipped, media_type=file.media_type, headers=headers)
