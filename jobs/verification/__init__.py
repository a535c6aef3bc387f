"""Verification that catalog, ledger, Milvus and image files agree."""
