"""Backups of the catalog and its image files, and their restoration; Milvus is rebuilt from them."""
