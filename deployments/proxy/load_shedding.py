"""Load shedding in HAProxy: lines that refuse a share of searches while gateways refuse some.

A refusal by a gateway takes most of a millisecond of a processor that others wait for, one by HAProxy a
twentieth of it. So while gateways refuse many, HAProxy refuses a part of the searches at the door. It knows
all gateways as one: where a single one is full, some are refused that another would have answered.
"""

import json

REFUSED_HEADER = "X-Search-Refused"
"""Marks answers of a gateway that had no room for a search; HAProxy takes it off."""
SEARCHES = ("/v1/search", "/v1/compare")
SIMILAR = "/similar"
"""What is a search: these paths, and those that end so."""

TOLERATED_PER_S = 20
"""Refusals a second that are left to the gateways: a short burst is theirs to weigh."""
FACTOR = 3
"""Of those that are not spared, the part that is refused here is so many times the part that gateways refuse of
what comes to them, without those that are tolerated. It is less than what they would refuse without it, so they
get more than they can answer."""
SPARED = 5
"""One in so many always comes to a gateway, for the counts are a second old."""

_TABLE = "refused_searches"
_IS_SHED = "is_search { var(txn.shed) -m int gt 0 } { var(txn.spared) -m int gt 0 }"
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
    # gpc0 counts refusals of gateways, gpc1 what came to them: refused / asked × FACTOR against a random share.
    f"http-request set-var(txn.asked) sc0_gpc1_rate({_TABLE}) if is_search",
    "http-request set-var(txn.dice) rand(100),mul(txn.asked) if is_search",
    f"http-request set-var(txn.shed) sc0_gpc0_rate({_TABLE}),sub({TOLERATED_PER_S}),mul({100 * FACTOR}),"
    "sub(txn.dice) if is_search",
    f"http-request set-var(txn.spared) rand({SPARED}) if is_search",
    # As the gateway does: the caller's id where it is clean, else a new one.
    f"http-request set-var(txn.request_id) req.fhdr(x-request-id) if {_IS_SHED}",
    "http-request set-var(txn.request_id) uuid "
    f"if {_IS_SHED} !{{ var(txn.request_id) -m reg '^[A-Za-z0-9._-]{{1,64}}$' }}",
    # Serve reads a line of the log for each request, which takes longer than the refusal.
    f"http-request set-log-level silent if {_IS_SHED}",
    "http-request return status 503 content-type application/json "
    f"hdr Retry-After 1 hdr Cache-Control no-store hdr X-Request-ID {_REQUEST_ID} lf-string '{_BODY}' if {_IS_SHED}",
    "http-request sc-inc-gpc1(0) if is_search",
    f"http-response sc-inc-gpc0(0) if {{ res.hdr({REFUSED_HEADER}) -m found }}",
    f"http-response del-header {REFUSED_HEADER}",
)
"""Lines for the frontend of HAProxy that callers come to."""

COUNTER = (
    f"backend {_TABLE}",
    "    stick-table type integer size 1 expire 1m store gpc0,gpc0_rate(1s),gpc1,gpc1_rate(1s)",
)
"""A section of HAProxy's configuration that counts what comes to gateways and what they refuse."""
