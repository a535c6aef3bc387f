"""Routes of API keys: make, list, revoke."""

from fastapi import APIRouter, Request

from core import api_keys
from deployments.http.auth import ADMIN
from deployments.http.errors import WITH_BODY, WITH_KEY, fails
from deployments.http.requests import BodyRoute, services
from vitrine.schemas.operations import ApiKey, CreateKeyRequest, CreateKeyResponse

router = APIRouter(
    prefix="/v1", tags=["keys"], dependencies=[ADMIN], responses=fails(*WITH_KEY), route_class=BodyRoute
)


@router.post("/keys", summary="Make a key", status_code=201, responses=fails(*WITH_BODY, 409))
async def make_key(request: Request, body: CreateKeyRequest) -> CreateKeyResponse:
    """Make a key and show it this once; the first one must be an admin's, and closes the service to others."""
    scopes = list(dict.fromkeys(body.scopes))
    key, secret = await services(request).api_keys.make(body.name, scopes, body.requests_per_s, body.burst)
    return CreateKeyResponse(key=secret, details=_key(key))


@router.get("/keys", summary="List keys")
async def list_keys(request: Request) -> list[ApiKey]:
    """List all keys, revoked ones too, oldest first."""
    return [_key(key) for key in await services(request).api_keys.all()]


@router.delete("/keys/{key_id}", summary="Revoke a key", status_code=204, responses=fails(404, 409))
async def revoke_key(key_id: str, request: Request) -> None:
    """End a key for good, on all replicas within seconds."""
    await services(request).api_keys.revoke(key_id)


def _key(key: api_keys.ApiKey) -> ApiKey:
    return ApiKey.model_validate(key, from_attributes=True)
