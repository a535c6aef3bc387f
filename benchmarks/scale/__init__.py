"""Calculations of docs/scale.md."""
