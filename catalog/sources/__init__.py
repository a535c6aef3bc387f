"""Sources of imports: each yields entries, one a product."""
