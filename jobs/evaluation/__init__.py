"""Comparing models and ensembles on queries whose answers are known."""
