"""The catalog: products, pictures, the embeddings ledger and the picture files."""
