"""Whether catalog, ledger and Milvus agree."""
