"""The catalog: products, images, the embeddings ledger and the image files."""
