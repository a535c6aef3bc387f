"""Collections of a Milvus: their fields and indexes, and the aliases that point at them.

Each function takes a client and the time that it may use. All may be repeated, also by several processes at once.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymilvus import DataType, MilvusClient, MilvusException

from core.filters import Kind
from milvus.config import IndexConfig
from milvus.connection import ALIAS_NOT_FOUND, NOT_FOUND
from milvus.schema import MAX_ID_BYTES, MAX_KEY_BYTES, MAX_STRING_BYTES, attribute_of, check_field

logger = logging.getLogger(__name__)

_DEFAULT_PARAMS: Mapping[str, dict[str, Any]] = {"HNSW": {"M": 16, "efConstruction": 200}}
_DATA_TYPES: Mapping[Kind, DataType] = {
    "string": DataType.VARCHAR,
    "number": DataType.DOUBLE,
    "bool": DataType.INT8,
}
_SCALAR_INDEXES: Mapping[Kind, tuple[str, ...]] = {
    "string": ("INVERTED", "Trie"),
    "number": ("INVERTED", "STL_SORT"),
    "bool": ("INVERTED", "STL_SORT"),
}
"""Indexes of the fields of declared attributes, the best first: INVERTED came with Milvus 2.4."""


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """A collection as it was made; `index_type` is empty until the index of its vectors is there.

    `declared` are the attributes that have fields of their own, with the kinds of these fields.
    """

    dimension: int
    index_type: str
    declared: Mapping[str, Kind]


def create_collection(
    client: MilvusClient,
    name: str,
    dimension: int,
    index: IndexConfig,
    declared: Mapping[str, Kind],
    lite: bool,
    timeout: float,
) -> None:
    """Create, index and load the collection; what is already done stays as it is."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_BYTES)
    schema.add_field("image_id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("revision", DataType.INT64)
    schema.add_field("product_id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("attributes", DataType.JSON)
    for attribute, kind in declared.items():
        length = {"max_length": MAX_STRING_BYTES} if kind == "string" else {}
        schema.add_field(check_field(attribute), _DATA_TYPES[kind], **length)
    if declared:
        schema.add_field("part", DataType.INT8)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dimension)
    _create(client, name, schema, timeout, **({} if lite else {"num_shards": index.shards}))
    if declared and not lite:
        # Lite compares the values of a field by pyarrow, and takes an index of scalars for one of vectors.
        kinds: dict[str, Kind] = {check_field(each): kind for each, kind in declared.items()} | {
            "part": "number"
        }
        for field, kind in kinds.items():
            if not _is_indexed(client, name, field, timeout):
                _index_values(client, name, field, kind, timeout)
    if not _is_indexed(client, name, "embedding", timeout):
        index_type = index.index_type or ("FLAT" if lite else "HNSW")
        params = index.params or _DEFAULT_PARAMS.get(index_type, {})
        _index(client, name, "embedding", timeout, index_type=index_type, metric_type="COSINE", params=params)
    client.load_collection(name, timeout=timeout)


def create_mark(client: MilvusClient, name: str, timeout: float) -> None:
    """Create an empty collection that is never loaded, unless it is there."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    # A server takes no collection without vectors.
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
    _create(client, name, schema, timeout)


def read_facts(client: MilvusClient, name: str, timeout: float) -> CollectionFacts:
    """Read how a collection was made."""
    fields = {each["name"]: each for each in client.describe_collection(name, timeout=timeout)["fields"]}
    kinds = {data_type: kind for kind, data_type in _DATA_TYPES.items()}
    declared = {
        attribute: kinds[DataType(each["type"])]
        for field, each in fields.items()
        if (attribute := attribute_of(field)) is not None
    }
    made = client.list_indexes(name, field_name="embedding", timeout=timeout)
    index = client.describe_index(name, made[0], timeout=timeout) if made else {}
    dimension = int(fields["embedding"]["params"]["dim"])
    return CollectionFacts(dimension, str(index.get("index_type", "")), declared)


def drop_collection(client: MilvusClient, name: str, timeout: float) -> None:
    """Drop a collection after its aliases, which a server would keep, pointing nowhere."""
    if not client.has_collection(name, timeout=timeout):
        return
    for alias in client.list_aliases(name, timeout=timeout)["aliases"]:
        client.drop_alias(alias, timeout=timeout)
    client.drop_collection(name, timeout=timeout)


def point_alias(client: MilvusClient, alias: str, collection: str, timeout: float) -> None:
    """Point the alias at the collection, wherever it pointed before."""
    # Not by the error of `alter_alias`: Lite has one code for a missing alias and a missing collection.
    try:
        client.describe_alias(alias, timeout=timeout)
    except MilvusException as error:
        if error.code not in (NOT_FOUND, ALIAS_NOT_FOUND):
            raise
        client.create_alias(collection, alias, timeout=timeout)
    else:
        client.alter_alias(collection, alias, timeout=timeout)


def _create(client: MilvusClient, name: str, schema: Any, timeout: float, **options: Any) -> None:
    if client.has_collection(name, timeout=timeout):
        return
    try:
        client.create_collection(name, schema=schema, timeout=timeout, **options)
    except MilvusException:
        # Another process may have been faster; the caller checks whose dimension it has.
        if not client.has_collection(name, timeout=timeout):
            raise


def _index_values(client: MilvusClient, name: str, field: str, kind: Kind, timeout: float) -> None:
    """Index a field of values by the best index that the server has."""
    for index_type in _SCALAR_INDEXES[kind]:
        try:
            return _index(client, name, field, timeout, index_type=index_type)
        except MilvusException as error:
            logger.info("Milvus has no index %s for %s of %s: %s", index_type, field, name, error.message)
    logger.warning("the field %s of %s has no index, so filters scan its values", field, name)


def _index(client: MilvusClient, name: str, field: str, timeout: float, **options: Any) -> None:
    chosen = client.prepare_index_params()
    # Named after its field: by default a server has one name for all, and Lite another one.
    chosen.add_index(field, index_name=field, **options)
    try:
        client.create_index(name, chosen, timeout=timeout)
    except MilvusException:
        if not _is_indexed(client, name, field, timeout):
            raise


def _is_indexed(client: MilvusClient, name: str, field: str, timeout: float) -> bool:
    # By the field: an index that was made without a name has one of the server's.
    return bool(client.list_indexes(name, field_name=field, timeout=timeout))
