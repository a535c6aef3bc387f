"""Backups of the catalog and its picture files, and their restoration; Milvus is rebuilt from them."""
