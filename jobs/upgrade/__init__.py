"""Moving a model to another version while it serves."""
