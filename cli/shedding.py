"""Searches that HAProxy refuses in place of a gateway that has begun to refuse some.

A refusal by a gateway takes most of a millisecond of a processor that others wait for, one by HAProxy a
twentieth of it. So while gateways refuse many, HAProxy refuses a part of the searches at the door: a part
that grows with what they still refuse, so that they always get some more than they can answer.
"""

import json

REFUSED_HEADER = "X-Search-Refused"
"""Marks answers of a gateway that had no room for a search; HAProxy takes it off."""
SEARCHES = ("/v1/search", "/v1/compare")
SIMILAR = "/similar"
"""What is a search: these paths, and those that end so."""

TOLERATED_PER_S = 20
"""Refusals a second that are left to the gateways: a short burst is theirs to weigh."""
SPREAD_PER_S = 60
"""With so many more refusals a second, all searches would be refused here; in between, in proportion.

At `offered` searches a second, of which gateways can answer `able`, what they still refuse settles where it
is `offered - able - offered * (refused - TOLERATED_PER_S) / SPREAD_PER_S`.
"""

_TABLE = "refused_searches"
_IS_SHED = "is_search { var(txn.shed) -m int gt 0 }"
_REQUEST_ID = "%[var(txn.request_id)]"
_BODY = json.dumps(
    {
        "error": {
            "type": "overloaded",
            "message": "as many requests as possible are in work; try again shortly",
            "param": None,
            "request_id": _REQUEST_ID,
        }
    }
)

FRONTEND = (
    f"acl is_search path {' '.join(SEARCHES)}",
    f"acl is_search path_end {SIMILAR}",
    f"http-request track-sc0 int(1) table {_TABLE} if is_search",
    f"http-request set-var(txn.dice) rand({SPREAD_PER_S}),add({TOLERATED_PER_S}) if is_search",
    f"http-request set-var(txn.shed) sc0_gpc0_rate({_TABLE}),sub(txn.dice) if is_search",
    # As the gateway does: the caller's id where it is clean, else a new one.
    "http-request set-var(txn.request_id) uuid",
    "http-request set-var(txn.request_id) req.hdr(x-request-id) "
    "if { req.hdr(x-request-id) -m reg '^[A-Za-z0-9._-]{1,64}$' }",
    # Serve reads a line of the log for each request, which takes longer than the refusal.
    f"http-request set-log-level silent if {_IS_SHED}",
    "http-request return status 503 content-type application/json "
    f"hdr Retry-After 1 hdr X-Request-ID {_REQUEST_ID} lf-string '{_BODY}' if {_IS_SHED}",
    f"http-response sc-inc-gpc0(0) if {{ res.hdr({REFUSED_HEADER}) -m found }}",
    f"http-response del-header {REFUSED_HEADER}",
)
"""Lines for the frontend of HAProxy that callers come to."""

COUNTER = (f"backend {_TABLE}", "    stick-table type integer size 1 expire 1m store gpc0,gpc0_rate(1s)")
"""A section of HAProxy's configuration that counts what gateways refuse."""
