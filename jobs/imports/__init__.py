"""Import of products from a source."""
