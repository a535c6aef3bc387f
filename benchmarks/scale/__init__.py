"""What many images take, on paper: docs/scale.md."""
