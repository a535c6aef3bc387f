"""What many pictures take, on paper: docs/scale.md."""
