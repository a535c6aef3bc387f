"""One replica of the gateway: the FastAPI ingress over catalog, Milvus and the encoders' handles."""

import logging
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.exceptions import RayServeException

from catalog.opening import open_catalog
from core.api_keys import NO_KEYS_NOTICE, exposed_notice, is_loopback
from core.concurrency import widen_thread_pool
from core.errors import ConfigError
from deployments.config import GatewayArgs, ServedModels
from deployments.http.app import create_app
from deployments.http.middleware import within_deadline
from deployments.observability.telemetry import serve_http_host, start_telemetry
from deployments.replicas.dependencies import wait_for
from deployments.replicas.handles import HandleEncoder, HandleEnsemble, Scales
from deployments.services.assembly import assemble
from milvus.store import MilvusStore

logger = logging.getLogger(__name__)


class GatewayReplica:
    """Answers HTTP. It handles products, never pixels or tensors."""

    def __init__(self, args: GatewayArgs) -> None:
        start_telemetry()
        self._args = args
        read_timeout_s = args.catalog.read_timeout_s
        self._catalog = wait_for(lambda: open_catalog(args.catalog, lambda: within_deadline(read_timeout_s)))
        self._store = MilvusStore(args.milvus)
        self._ensemble = HandleEnsemble(args.encode_deadline_s)
        self._scales = Scales()
        self._encoders: dict[str, HandleEncoder] = {}
        self._app = create_app(args)
        self._exposed_at = _exposed_at()
        if not args.authentication.admin_key_sha256 and not self._catalog.api_keys.all():
            if self._exposed_at is not None:
                # For the log, and for Serve's status as the reason of the failed deployment.
                logger.error(exposed_notice(self._exposed_at))
                raise ConfigError(exposed_notice(self._exposed_at))
            logger.warning(NO_KEYS_NOTICE)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Hand the application to Serve."""
        return self._app

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply the list of models, in place."""
        widen_thread_pool()
        served = ServedModels.model_validate(user_config)
        self._encoders = {name: each for name, each in self._encoders.items() if name in served.models}
        self._app.state.services = assemble(
            self._args,
            served,
            self._catalog,
            self._store,
            self._encoder,
            self._ensemble,
            self._exposed_at,
            self._scales.of,
            lambda name, scale: self._encoder(name).last_info(scale),
        )

    def _encoder(self, name: str) -> HandleEncoder:
        if name not in self._encoders:
            self._encoders[name] = HandleEncoder(
                name,
                self._args.encode_deadline_s,
                self._scales.of,
                index_schema=self._args.milvus.index_schema,
            )
        return self._encoders[name]


def _exposed_at() -> str | None:
    """Return the address that Serve listens on; None on loopback, and outside of Serve."""
    try:
        serve.get_replica_context()
    except RayServeException:
        return None
    host = serve_http_host()
    return None if host is None or is_loopback(host) else host
