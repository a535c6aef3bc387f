"""Full-text search over what is written about products, by the database's own engine.

`words` cuts texts into words, `documents` keeps what each product is found by in step with the catalog,
`engines` says how SQLite FTS5 and PostgreSQL rank, `index` answers queries.
"""
