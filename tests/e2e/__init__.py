"""Whole services. First those that run alone, then one for all the other tests, which ends with this package."""
