"""The page at `/` and the operations page: files without data, which need no key."""

from fastapi import APIRouter, Request, Response

from core.errors import NotFound
from deployments.etags import matches
from deployments.web_files import WebFile, read_web_files

router = APIRouter(include_in_schema=False)
_FILES = read_web_files()
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    # Always asked for anew, so that no browser mixes the files of two releases; the tag makes that cheap.
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
