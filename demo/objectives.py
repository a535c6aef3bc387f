"""Losses of the demo's models."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.captions import Mentioned
from demo.looks import BACKGROUNDS, COLOURS, PATTERNS, TYPES


class AttributeHeads(nn.Module):
    """Linear classifiers of type, colour, pattern and background, used in training only."""

    def __init__(self, width: int, weights: Sequence[float]) -> None:
        """`weights` of the four losses; `width` is the dimension of the features."""
        super().__init__()
        sizes = (len(TYPES), len(COLOURS), len(PATTERNS), len(BACKGROUNDS))
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.weights = tuple(weights)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Weighted sum of the cross-entropies for features (n, width) and labels (n, 4)."""
        losses = [
            weight * F.cross_entropy(head(features), labels[:, place])
            for place, (head, weight) in enumerate(zip(self.heads, self.weights, strict=True))
        ]
        return torch.stack(losses).sum()


def fitting(labels: Tensor, mentioned: Sequence[Mentioned]) -> Tensor:
    """Which captions fit which pictures, bool (n pictures, n captions).

    Caption j was made for picture j; it fits every picture that agrees in all attributes it mentions.
    """
    agrees = labels[:, None, :] == labels[None]
    return (agrees | ~torch.tensor(mentioned)[None]).all(-1)


def contrastive_loss(logits: Tensor, fits: Tensor) -> Tensor:
    """Cross-entropy over pictures and over captions against all that fit, with equal shares.

    `logits` and `fits` are (n pictures, n captions). With one fit each this is CLIP's loss
    (arXiv 2103.00020); several come from supervised contrastive learning (arXiv 2004.11362).
    """
    targets = fits.to(logits.dtype)
    by_picture = (targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    by_caption = (targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return -(by_picture + by_caption) / 2
