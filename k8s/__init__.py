"""Manifests for KubeRay, and what generates parts of them."""
