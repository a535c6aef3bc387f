"""Fetching of callers' URLs, without giving callers access to our network."""
