"""Embeddings in Milvus: schema, collections and aliases, search, and the owner of a Milvus Lite folder."""
