"""Who is let in, how much at once and for how long."""

from pydantic import Field

from core.config import Config


class DoorConfig(Config):
    """The gateway's doors; every bound is per replica of the gateway."""

    admin_key_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="Lower-case hex sha256 of an admin key that is not in the database: the first key, and "
        "the way back in. Empty: none, and then the service must listen on loopback.",
    )
    keys_ttl_s: float = Field(
        2.0, ge=0, description="How long what the database says of keys is believed, in seconds."
    )
    requests_per_s: float = Field(
        50.0, gt=0, description="Requests per second that a key may send, unless the key says otherwise."
    )
    burst: int = Field(
        100, gt=0, description="Requests that a key may send at once, unless the key says otherwise."
    )
    max_in_flight: int = Field(
        64, gt=0, description="Requests in work at once; further ones are refused with 503 at once."
    )
    search_slowdown: float = Field(
        1.5,
        gt=1,
        description="How many times as long as one alone searches may take while there are more than can be "
        "answered: so many are in work at once as keep it, the others are refused with 503 at once.",
    )
    request_deadline_s: float = Field(
        30.0,
        gt=0,
        description="How long a request may take, its body included, in seconds; a caller may ask for less "
        "by the header X-Request-Timeout-Seconds.",
    )
