"""The check of a Serve configuration file, and its tables in the docs."""
