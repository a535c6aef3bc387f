"""One replica of the ensemble, which fans a query out to its members and fuses their hits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.concurrency import widen_thread_pool
from core.ensemble import EnsembleSearch
from core.errors import InvalidInput, ModelUnavailable
from core.search import ENSEMBLE, ModelSearch, SearchQuery, SearchResult
from deployments.config import EnsembleArgs, EnsembleSettings
from deployments.observability.telemetry import called, start_telemetry
from deployments.replicas.handles import HandleEncoder
from milvus.store import MilvusStore


class EnsembleReplica:
    """Fans a query out to its members and fuses their hits; runs no model itself."""

    def __init__(self, args: EnsembleArgs) -> None:
        start_telemetry()
        self._args = args
        self._store = MilvusStore(args.milvus)
        self._settings = EnsembleSettings(weights={})
        self._ensemble = EnsembleSearch({}, args.member_deadline_s)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply the members and weights of the configuration, in place."""
        widen_thread_pool()
        self._settings = EnsembleSettings.model_validate(user_config)
        deadline_s, index_schema = self._args.member_deadline_s, self._args.milvus.index_schema
        members = {
            name: ModelSearch(HandleEncoder(name, deadline_s, index_schema=index_schema), self._store)
            for name in self._settings.weights
        }
        self._ensemble = EnsembleSearch(members, self._args.member_deadline_s)

    async def search(self, query: SearchQuery) -> SearchResult:
        """Search with the members; a weight given for a model replaces the configured one.

        Raises:
            InvalidInput: a weight names a model that is no member.
        """
        with called("search", ENSEMBLE, len(query.parts)):
            merged, fusion = self._merged(query.weights), query.fusion or self._settings.fusion
            return await self._ensemble.search(replace(query, weights=merged, fusion=fusion))

    def _merged(self, weights: Mapping[str, float] | None) -> dict[str, float]:
        if not self._settings.weights:
            raise ModelUnavailable("the ensemble has no members")
        strangers = sorted(set(weights or {}) - set(self._settings.weights))
        if strangers:
            members = ", ".join(sorted(self._settings.weights))
            message = f"{strangers[0]!r} is no member of the ensemble; members: {members}"
            raise InvalidInput(message).at("weights")
        return {**self._settings.weights, **(weights or {})}
