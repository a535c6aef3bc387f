"""Imports of products from a source."""
