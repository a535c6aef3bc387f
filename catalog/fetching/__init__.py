"""Fetching what a caller's URL names, without lending the caller our place in the network."""
