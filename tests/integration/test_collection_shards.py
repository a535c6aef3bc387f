"""A collection on a server has as many shards as are configured; Milvus Lite knows none."""

from pymilvus import MilvusClient

from milvus.config import IndexConfig, MilvusConfig
from milvus.store import MilvusStore


def test_a_new_collection_has_the_configured_shards(server_uri: str, lite_uri: str) -> None:
    for uri in (server_uri, lite_uri):
        store = MilvusStore(MilvusConfig(uri=uri, index=IndexConfig(shards=3)))
        store.ensure_collection("in_shards", 8)
        if uri == server_uri:
            client = MilvusClient(uri)
            assert client.describe_collection("in_shards")["num_shards"] == 3
            client.close()
        store.drop_collection("in_shards")
        store.close()
