"""Training of the small models of the demo."""
