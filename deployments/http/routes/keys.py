"""Routes of API keys: make, list, revoke."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from core.api_keys import ApiKey, Scope
from core.types import WholeNumber
from deployments.http.bodies import Taken
from deployments.http.dependencies import ADMIN, services
from deployments.http.errors import fails
from deployments.http.schemas import Body

router = APIRouter(prefix="/v1", tags=["keys"], dependencies=[ADMIN])


class KeyBody(Body):
    """A key to make."""

    name: str = Field(min_length=1, max_length=100, description="Whose key it is, or what it is for.")
    scopes: list[Scope] = Field(min_length=1, description="admin holds write, write holds read.")
    requests_per_s: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="Its rate limit; left out: the configured one."
    )
    burst: Annotated[WholeNumber, Field(gt=0, le=1_000_000)] | None = Field(
        None, description="Requests that it may send at once; left out: as configured."
    )


KEY = Taken(KeyBody)


class KeyView(BaseModel):
    """A key, without the key itself."""

    key_id: str
    name: str
    scopes: list[Scope]
    requests_per_s: float | None
    burst: int | None
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Up to a minute old.")

    @classmethod
    def of(cls, key: ApiKey) -> "KeyView":
        """Show what may be shown of a key."""
        return cls.model_validate(key, from_attributes=True)


class MadeView(BaseModel):
    """A new key; `key` is what to send, and is never shown again."""

    key: str
    details: KeyView


@router.post(
    "/keys", summary="Make a key", status_code=201, openapi_extra=KEY.described, responses=fails(409)
)
async def make_key(request: Request) -> MadeView:
    """Make a key and show it this once. The first key must be an admin key; from then on every call needs one."""
    body = await KEY.json(request)
    scopes = list(dict.fromkeys(body.scopes))
    key, secret = await services(request).api_keys.make(body.name, scopes, body.requests_per_s, body.burst)
    return MadeView(key=secret, details=KeyView.of(key))


@router.get("/keys", summary="List keys")
async def list_keys(request: Request) -> list[KeyView]:
    """List all keys, including revoked ones, oldest first."""
    return [KeyView.of(key) for key in await services(request).api_keys.all()]


@router.delete("/keys/{key_id}", summary="Revoke a key", status_code=204, responses=fails(404, 409))
async def revoke_key(key_id: str, request: Request) -> None:
    """Revoke a key for good; all replicas refuse it within seconds."""
    await services(request).api_keys.revoke(key_id)
