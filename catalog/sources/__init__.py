"""Where catalogues are imported from: each source yields entries, one a product."""
