"""Bulk work on Ray Data."""
