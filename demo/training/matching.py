"""Command that trains the matching head of a trained BLIP-2: `python -m demo.training.matching --base DIR --out DIR`.

The head judges a text and an image together, which takes the Q-Former: its queries then attend to the text too. So
the Q-Former is trained with the head, and held to the vectors that it gave before.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval, Blip2Processor

from demo.garments import random_caption
from demo.training.blip2 import frozen_states, processor, query_states, text_vectors
from demo.training.command import SEED, options, run
from demo.training.dataset import LabeledImages
from demo.training.optimization import Schedule, optimize

_BATCH = 250
_HARDNESS = 15.0
"""Scale of the similarities by which pairs are drawn that look alike and do not fit."""
_PATCHES = 16
"""Patches of an image that a step sees, beside the one that sums it up."""
_KEEP = 20.0
"""Share of the loss that holds vectors where they were."""


def train(images: LabeledImages, steps: int, base: Path, out: Path) -> None:
    """Train everything but the image encoder on pairs that fit and pairs that do not, and save.

    In two stages, as pairs that are hard to tell teach nothing at first: for each caption, an image that it does not
    fit comes from the images of the step, and then, for half as many steps, from all images.
    """
    train_stage(images, steps, base, out, from_all=False)
    train_stage(images, steps // 2, out, out, from_all=True)


def train_stage(images: LabeledImages, steps: int, base: Path, out: Path, from_all: bool) -> None:
    """Train one stage on the checkpoint `base`, and save.

    A step has pairs of image and caption, each caption with an image that it does not fit, and each image with a
    caption of the step that does not fit it. The more alike the vectors, the likelier is such a pair (BLIP-2, arXiv
    2301.12597, section 3.1, after ALBEF, arXiv 2107.07651). Vectors are held by the distance to those of the model
    before (Learning without Forgetting, arXiv 1606.09282).
    """
    tools = processor()
    model = Blip2ForImageTextRetrieval.from_pretrained(base, dtype=torch.float32)
    model.vision_model.requires_grad_(False)
    before = deepcopy(model).eval().requires_grad_(False)
    states, labels = frozen_states(model, images), torch.from_numpy(images.labels)
    all_before = _all_vectors(before, states) if from_all else torch.empty(0)
    model.train()
    rng, drawn = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)

    def objective(batch: NDArray[np.int64], _progress: float) -> Tensor:
        captions, mentioned = zip(*(random_caption(images.designs[i], rng) for i in batch), strict=True)
        shown, own = torch.from_numpy(batch), torch.arange(len(batch))
        # A part of the patches at a time, as in FLIP (arXiv 2212.00794): a step takes half the time.
        patches = _some_patches(states.shape[1], drawn)
        seen = states[shown][:, patches].float()
        with torch.no_grad():
            targets = _image_vectors(before, seen), text_vectors(before, tools, captions)
        vectors = _image_vectors(model, seen), text_vectors(model, tools, captions)
        kept = sum((1 - (now * was).sum(-1)).mean() for now, was in zip(vectors, targets, strict=True))
        # Images to draw from, with the places of the step's own among them.
        drawn_from, places = (torch.arange(len(images)), shown) if from_all else (shown, own)
        scores = torch.einsum("nqd,md->nqm", all_before if from_all else targets[0], targets[1]).amax(1)
        fits = ((labels[drawn_from][:, None] == labels[shown][None]) | ~torch.tensor(mentioned)[None]).all(-1)
        likely = (_HARDNESS * scores).exp() * ~fits + 1e-9
        other_images = torch.multinomial(likely.T, 1, generator=drawn)[:, 0]
        other_captions = torch.multinomial(likely[places], 1, generator=drawn)[:, 0]
        rows = torch.cat([places, other_images, places])
        columns = torch.cat([own, own, other_captions])
        pairs = states[drawn_from[rows]][:, patches].float(), [captions[column] for column in columns]
        judged = _judgments(model, tools, *pairs)
        return F.cross_entropy(judged, fits[rows, columns].long()) + _KEEP * kept

    optimize(objective, model.parameters(), Schedule(steps, 48, 1.5e-3, warm_up_steps=40), len(images), SEED)
    model.half().save_pretrained(out)
    tools.save_pretrained(out)


def _some_patches(count: int, drawn: torch.Generator) -> Tensor:
    """Draw the places of `_PATCHES` patches, after that of the one that sums the image up."""
    chosen = 1 + torch.randperm(count - 1, generator=drawn)[:_PATCHES]
    return torch.cat([torch.zeros(1, dtype=torch.long), chosen])


def _image_vectors(model: Blip2ForImageTextRetrieval, states: Tensor) -> Tensor:
    """Compute unit vectors of the queries (n, queries, dimension)."""
    return F.normalize(model.vision_projection(query_states(model, states)), dim=-1)


@torch.no_grad()
def _all_vectors(model: Blip2ForImageTextRetrieval, states: Tensor) -> Tensor:
    starts = range(0, len(states), _BATCH)
    return torch.cat([_image_vectors(model, states[start : start + _BATCH].float()) for start in starts])


def _judgments(
    model: Blip2ForImageTextRetrieval, tools: Blip2Processor, states: Tensor, captions: Sequence[str]
) -> Tensor:
    """Compute the head's two logits of each pair, no match and match, (n, 2)."""
    tokens = tools.tokenizer(list(captions), padding=True, return_tensors="pt", return_token_type_ids=False)
    queries = model.query_tokens.expand(len(states), -1, -1)
    length = queries.shape[1]
    mask = F.pad(tokens["attention_mask"], (length, 0), value=1)
    former = model.qformer(
        query_embeds=model.embeddings(input_ids=tokens["input_ids"], query_embeds=queries),
        query_length=length,
        attention_mask=mask,
        encoder_hidden_states=states,
    )
    judged: Tensor = model.itm_head(former.last_hidden_state[:, :length]).mean(1)
    return judged


def main(arguments: list[str] | None = None) -> None:
    """Train, save and judge."""
    training = options(
        "Train the matching head of the demo's BLIP-2.", 500, arguments, images=4000, base=True
    )
    assert training.base is not None
    base = training.base
    run(training, "blip2", lambda images, steps: train(images, steps, base, training.out))


if __name__ == "__main__":
    main()
