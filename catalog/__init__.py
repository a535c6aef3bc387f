"""The catalogue: products, pictures, the embeddings ledger and the picture files."""
