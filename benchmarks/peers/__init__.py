"""Vitrine beside other servers of embeddings: the same weights, images and client for all."""
