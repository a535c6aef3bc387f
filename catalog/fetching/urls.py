"""Which URLs are fetched at all, as far as their text tells."""

from collections.abc import Collection

import httpx

from core.errors import UnfetchableUrl

MAX_URL_LENGTH = 4096
_PORTS = {"http": 80, "https": 443}


def parse_url(text: str, ports: Collection[int]) -> httpx.URL:
    """Read a URL.

    Raises:
        UnfetchableUrl: it is not http(s), carries credentials, or names no host or a port that is not
            among `ports`.
    """
    if len(text) > MAX_URL_LENGTH:
        raise UnfetchableUrl(f"a URL may have at most {MAX_URL_LENGTH} characters")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise UnfetchableUrl("not a valid URL; send one like https://example.com/picture.jpg") from None
    return _checked(url, ports)


def follow(url: httpx.URL, location: str, ports: Collection[int]) -> httpx.URL:
    """Read where a redirect leads from `url`.

    Raises:
        UnfetchableUrl: as `parse_url`, and when it would leave https.
    """
    try:
        target = _checked(url.join(location[:MAX_URL_LENGTH]), ports)
    except (httpx.InvalidURL, ValueError):
        raise UnfetchableUrl("the URL redirects to something that is not a URL") from None
    except UnfetchableUrl as error:
        raise UnfetchableUrl(f"the URL redirects to another that is not fetched: {error.message}") from None
    if url.scheme == "https" and target.scheme != "https":
        raise UnfetchableUrl("the URL redirects from https to http")
    return target


def _checked(url: httpx.URL, ports: Collection[int]) -> httpx.URL:
    if url.scheme not in _PORTS:
        raise UnfetchableUrl("only http and https URLs are fetched")
    if url.userinfo:
        raise UnfetchableUrl("a URL may not carry a user name or a password")
    if not url.raw_host:
        raise UnfetchableUrl("the URL names no host")
    if (_PORTS[url.scheme] if url.port is None else url.port) not in ports:
        known = ", ".join(str(port) for port in sorted(ports))
        raise UnfetchableUrl(f"the URL's port is not open to fetching; ports: {known}")
    return url
