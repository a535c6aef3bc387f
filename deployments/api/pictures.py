"""Pictures as they stand in JSON: base64, a data URI, or the URL of a file."""

from collections.abc import Sequence

from catalog.fetching.fetcher import Fetcher
from core.errors import InvalidInput, VitrineError
from deployments.api.bodies import decode_base64


async def read_pictures(sources: Sequence[str], fetcher: Fetcher) -> list[bytes | VitrineError]:
    """Read pictures, those behind URLs side by side; each succeeds or fails alone, in order."""
    fetched = iter(await fetcher.fetch_all([source for source in sources if _is_url(source)]))
    decoded = iter(await decode_pictures([source for source in sources if not _is_url(source)]))
    return [next(fetched if _is_url(source) else decoded) for source in sources]


async def decode_pictures(sources: Sequence[str]) -> list[bytes | VitrineError]:
    """Decode base64 and data URIs; each succeeds or fails alone, in order."""
    return [await _decode(source) for source in sources]


async def fetch_picture(url: str, fetcher: Fetcher, param: str) -> bytes:
    """Fetch the one picture of a request; the errors of `Fetcher.fetch` name `param`."""
    try:
        return await fetcher.fetch(url)
    except VitrineError as error:
        raise error.at(param) from None


def _is_url(source: str) -> bool:
    """Tell a URL from base64 and data URIs, which never begin like one."""
    return source[:8].lower().startswith(("http://", "https://"))


async def _decode(source: str) -> bytes | VitrineError:
    try:
        return await decode_base64(source, "image")
    except InvalidInput as error:
        return error
