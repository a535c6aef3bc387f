"""BLIP-2's Q-Former as an image tower and as a text tower."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class QueryStates(nn.Module):
    """One vector a picture: the mean over the queries, projected first where there is a retrieval head.

    The mean stands in for the maximum over queries by which BLIP-2 scores: a single vector cannot hold
    the maximum, and one query alone loses most of the accuracy.
    """

    def __init__(self, model: Any, projection: nn.Module | None) -> None:
        super().__init__()
        self.vision_model, self.qformer, self.query_tokens = (
            model.vision_model,
            model.qformer,
            model.query_tokens,
        )
        # In float32 whatever the towers are: it costs nothing and is the last step before comparing.
        self.projection = projection.float() if projection is not None else None

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) to float32 (n, dimension)."""
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        everywhere = torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device)
        states: Tensor = self.qformer(
            query_embeds=self.query_tokens.expand(len(seen), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=everywhere,
        ).last_hidden_state.float()
        if self.projection is None:
            return states.mean(dim=1)
        return nn.functional.normalize(self.projection(states), dim=-1).mean(dim=1)


class TextProjection(nn.Module):
    """Words through the Q-Former: the projected state of the first token."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.embeddings, self.qformer = model.embeddings, model.qformer
        self.projection = model.text_projection.float()
        self.tokenizer = tokenizer
        self.longest = min(tokenizer.model_max_length, model.config.qformer_config.max_position_embeddings)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts, cut at the model's longest, to float32 (n, dimension)."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.projection.weight.device)
        states = self.qformer(
            query_embeds=self.embeddings(input_ids=tokens["input_ids"]),
            query_length=0,
            attention_mask=tokens["attention_mask"],
        ).last_hidden_state
        projected: Tensor = self.projection(states[:, 0].float())
        return projected
