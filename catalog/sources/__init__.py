"""Where catalogs are imported from: each source yields entries, one a product."""
