"""Collections and aliases of a Milvus server: make, list, drop, point."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pymilvus import MilvusClient, MilvusException

from core.errors import Conflict, NotFound
from core.types import CollectionInfo
from milvus.config import MilvusConfig
from milvus.connection import NOT_LOADED, Connection
from milvus.creation import create_collection, create_mark
from milvus.schema import check_dimension, check_name, mark_name, marked_id

Result = TypeVar("Result")
Work = Callable[[MilvusClient, float], Result]


class MilvusCollections:
    """The part of the store that deals in whole collections."""

    def __init__(self, config: MilvusConfig) -> None:
        self._config = config
        self.address = config.uri
        self.rebuilt_if_empty = config.is_rebuilt_if_empty
        self._connection = Connection(config)
        self._facts: dict[str, tuple[int, str]] = {}
        self._lite: bool | None = None

    def marks(self) -> set[str]:
        """Read the ids of the catalogs that have marked this Milvus as theirs."""
        return {store_id for name in self._names() if (store_id := marked_id(name)) is not None}

    def set_mark(self, store_id: str) -> None:
        """Mark this Milvus as that of a catalog, by an empty collection."""
        name = mark_name(store_id)
        self._connection.call(
            lambda client, left_s: create_mark(client, name, left_s), self._config.build_timeout_s
        )

    def has_collection(self, name: str) -> bool:
        """Tell whether there is a collection of that name, or an alias."""
        check_name(name)
        return bool(self._connection.call(lambda client, left_s: client.has_collection(name, timeout=left_s)))

    def ensure_collection(self, name: str, dimension: int) -> None:
        """Create, index and load the collection unless it is there; Conflict if its dimension differs."""
        check_name(name)
        check_dimension(dimension)
        self._refuse_alias(name)
        lite = self._is_lite()

        def create(client: MilvusClient, left_s: float) -> None:
            create_collection(client, name, dimension, self._config.index, lite, left_s)

        self._connection.call(create, self._config.build_timeout_s)
        if (there := self._describe(name)[0]) != dimension:
            raise Conflict(f"{name} has dimension {there}, not {dimension}")

    def drop_collection(self, name: str) -> None:
        """Drop the collection and its aliases; Conflict when the name is an alias."""
        check_name(name)
        self._refuse_alias(name)
        self._facts.pop(name, None)
        self._connection.call(lambda client, left_s: _drop(client, name, left_s))

    def collections(self) -> list[CollectionInfo]:
        """List the collections by name, with the rows that a search finds; marks are none."""
        found = []
        for name in sorted(name for name in self._names() if marked_id(name) is None):
            try:
                dimension, index_type = self._describe(name)
                found.append(CollectionInfo(name, dimension, self._count(name) if index_type else 0))
            except NotFound:
                self._facts.pop(name, None)
        return found

    def set_alias(self, alias: str, collection: str) -> None:
        """Point the alias at the collection, wherever it pointed before."""
        check_name(alias)
        names = self._names()
        if alias in names:
            raise Conflict(f"{alias} is a collection, so it cannot be an alias")
        if collection not in names:
            raise NotFound(f"there is no collection {collection}")

        def point(client: MilvusClient, left_s: float) -> None:
            try:
                client.alter_alias(collection, alias, timeout=left_s)
            except MilvusException:
                client.create_alias(collection, alias, timeout=left_s)

        self._connection.call(point)

    def alias_target(self, alias: str) -> str | None:
        """Name the collection behind the alias."""
        check_name(alias)
        try:
            found = self._connection.call(lambda client, left_s: client.describe_alias(alias, timeout=left_s))
        except NotFound:
            return None
        return str(found["collection_name"]) or None

    def ping(self) -> None:
        """Return when Milvus answers a call that reads its collections."""
        self._names()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _names(self) -> list[str]:
        return list(self._connection.call(lambda client, left_s: client.list_collections(timeout=left_s)))

    def _refuse_alias(self, name: str) -> None:
        if self.alias_target(name) is not None:
            raise Conflict(f"{name} is an alias, not a collection")

    def _describe(self, name: str) -> tuple[int, str]:
        """The dimension and index type of a collection; the type is empty while it is being made."""
        if name in self._facts:
            return self._facts[name]
        facts = self._connection.call(lambda client, left_s: _facts(client, name, left_s))
        if facts[1]:
            self._facts[name] = facts
        return facts

    def _count(self, collection: str) -> int:
        return int(self._query(collection, "", ["count(*)"])[0]["count(*)"])

    def _query(self, collection: str, expression: str, fields: Sequence[str], **options: Any) -> list[Any]:
        settings = {"consistency_level": self._config.consistency, **options}

        def query(client: MilvusClient, left_s: float) -> list[Any]:
            found = client.query(
                collection, filter=expression, output_fields=list(fields), timeout=left_s, **settings
            )
            return list(found)

        return self._read(collection, query)

    def _read(self, collection: str, work: Work[Result]) -> Result:
        """Read, and load the collection when a restart has left it unloaded."""

        def loaded(client: MilvusClient, left_s: float) -> Result:
            try:
                return work(client, left_s)
            except MilvusException as error:
                if error.code != NOT_LOADED:
                    raise
                client.load_collection(collection, timeout=left_s)
                return work(client, left_s)

        return self._connection.call(loaded)

    def _is_lite(self) -> bool:
        if self._lite is None:
            version = self._connection.call(
                lambda client, left_s: str(client.get_server_version(timeout=left_s))
            )
            self._lite = version.startswith("milvus_lite")
        return self._lite


def _facts(client: MilvusClient, name: str, left_s: float) -> tuple[int, str]:
    fields = client.describe_collection(name, timeout=left_s)["fields"]
    made = client.list_indexes(name, timeout=left_s)
    index = client.describe_index(name, made[0], timeout=left_s) if made else {}
    dimension = next(int(field["params"]["dim"]) for field in fields if field["name"] == "embedding")
    return dimension, str(index.get("index_type", ""))


def _drop(client: MilvusClient, name: str, left_s: float) -> None:
    """Drop the aliases first: a server keeps them, pointing nowhere."""
    if not client.has_collection(name, timeout=left_s):
        return
    for alias in client.list_aliases(name, timeout=left_s)["aliases"]:
        client.drop_alias(alias, timeout=left_s)
    client.drop_collection(name, timeout=left_s)
