"""Bulk build of a collection on Ray Data."""
