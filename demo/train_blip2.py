"""Train the demo's BLIP-2 retrieval model on its frozen DINOv2: `python -m demo.train_blip2 --out DIR`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2QFormerConfig,
    BlipImageProcessor,
    Dinov2Model,
)

from demo.captions import WORDS, random_caption
from demo.dataset import INPUT_SIZE, LabelledPictures
from demo.frozen_vision import transplant, vision_config
from demo.objectives import AttributeHeads, contrastive_loss, fitting
from demo.optimisation import Schedule, optimise
from demo.pixels import IMAGENET_MEAN, IMAGENET_STD, normalised
from demo.training import SEED, options, run

DINOV2 = Path(__file__).parent / "weights" / "dinov2"
_QUERIES, _DIMENSION, _LONGEST = 8, 64, 32
_ATTRIBUTE_WEIGHTS = (1.0, 1.0, 1.0, 0.0)
_LARGEST_SCALE = float(np.log(100))
_BATCH = 250


def processor() -> Blip2Processor:
    """Words as single tokens, and pictures as the DINOv2 underneath was trained on them."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    words = BertTokenizer(
        vocab={token: place for place, token in enumerate(tokens)}, model_max_length=_LONGEST
    )
    pictures = BlipImageProcessor(
        size={"height": INPUT_SIZE, "width": INPUT_SIZE}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    # Without a number of query tokens it puts no placeholders before the words, as retrieval needs.
    return Blip2Processor(pictures, words, num_query_tokens=None)


def build_model(dinov2: Dinov2Model, vocabulary: int) -> Blip2ForImageTextRetrieval:
    """A fresh Q-Former with its projections on the frozen image encoder."""
    width = dinov2.config.hidden_size
    former = Blip2QFormerConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=2 * width,
        encoder_hidden_size=width,
        cross_attention_frequency=1,
        use_qformer_text_input=True,
        max_position_embeddings=_LONGEST,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config = Blip2Config(
        vision_config=vision_config(dinov2).to_dict(),
        qformer_config=former.to_dict(),
        num_query_tokens=_QUERIES,
        image_text_hidden_size=_DIMENSION,
    )
    model = Blip2ForImageTextRetrieval(config)
    nn.init.normal_(model.query_tokens, std=0.5)
    transplant(dinov2, model.vision_model)
    return model


def train(pictures: LabelledPictures, steps: int, out: Path, dinov2: Path = DINOV2) -> None:
    """Train everything but the image encoder, and save."""
    tools = processor()
    vision = Dinov2Model.from_pretrained(dinov2, dtype=torch.float32)
    model = build_model(vision, len(tools.tokenizer)).train()
    heads = AttributeHeads(vision.config.hidden_size, _ATTRIBUTE_WEIGHTS)
    scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    states, labels = _frozen_states(model, pictures), torch.from_numpy(pictures.labels)
    rng = np.random.default_rng(SEED)

    def objective(batch: NDArray[np.int64], _progress: float) -> Tensor:
        captions, mentioned = zip(*(random_caption(pictures.looks[i], rng) for i in batch), strict=True)
        with torch.autocast("cpu", torch.bfloat16):
            queries = _query_states(model, states[batch].float())
            read = _text_vectors(model, tools, captions)
        seen = F.normalize(model.vision_projection(queries.float()), dim=-1)
        # BLIP-2's contrastive score: the best of the queries (arXiv 2301.12597, section 3.1).
        scores = torch.einsum("nqd,md->nqm", seen, read).amax(1)
        logits = scale.clamp(0, _LARGEST_SCALE).exp() * scores
        told_apart: Tensor = heads(queries.float().mean(1), labels[batch])
        return contrastive_loss(logits, fitting(labels[batch], mentioned)) + told_apart

    parameters = [*model.parameters(), *heads.parameters(), scale]
    optimise(objective, parameters, Schedule(steps, 64, 2e-3), len(pictures), SEED)
    model.half().save_pretrained(out)
    tools.save_pretrained(out)


@torch.no_grad()
def _frozen_states(model: Blip2ForImageTextRetrieval, pictures: LabelledPictures) -> Tensor:
    """What the image encoder says of every picture, fp16 (n, patches + 1, width): it never changes."""
    model.vision_model.eval()
    states = []
    for start in range(0, len(pictures), _BATCH):
        values = normalised(pictures.pixels[start : start + _BATCH], IMAGENET_MEAN, IMAGENET_STD)
        states.append(model.vision_model(pixel_values=values).last_hidden_state.half())
    return torch.cat(states)


def _query_states(model: Blip2ForImageTextRetrieval, states: Tensor) -> Tensor:
    queries = model.query_tokens.expand(len(states), -1, -1)
    former: Tensor = model.qformer(query_embeds=queries, encoder_hidden_states=states).last_hidden_state
    return former


def _text_vectors(
    model: Blip2ForImageTextRetrieval, tools: Blip2Processor, captions: Sequence[str]
) -> Tensor:
    tokens = tools.tokenizer(list(captions), padding=True, return_tensors="pt", return_token_type_ids=False)
    embedded = model.embeddings(input_ids=tokens["input_ids"])
    former = model.qformer(query_embeds=embedded, query_length=0, attention_mask=tokens["attention_mask"])
    return F.normalize(model.text_projection(former.last_hidden_state[:, 0]).float(), dim=-1)


def main(arguments: list[str] | None = None) -> None:
    """Train, save and judge."""
    training = options("Train the demo's BLIP-2 model.", steps=5000, arguments=arguments)
    run(training, "blip2", lambda pictures, steps: train(pictures, steps, training.out))


if __name__ == "__main__":
    main()
