"""Command that trains the demo's BLIP-2 on its frozen DINOv2: `python -m demo.training.blip2 --out DIR`."""

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
    Blip2VisionConfig,
    Blip2VisionModel,
    BlipImageProcessor,
    Dinov2Model,
)

from demo.garments import WORDS, random_caption
from demo.training.command import SEED, options, run
from demo.training.dataset import IMAGENET_MEAN, IMAGENET_STD, INPUT_SIZE, LabeledImages, normalized
from demo.training.optimization import AttributeHeads, Schedule, contrastive_loss, fitting, optimize

_QUERIES, _DIMENSION, _LONGEST = 8, 64, 32
_ATTRIBUTE_WEIGHTS = (1.0, 1.0, 1.0, 0.0)
_LARGEST_SCALE = float(np.log(100))
_BATCH = 250


def vision_config(source: Dinov2Model) -> Blip2VisionConfig:
    """Return the configuration of a BLIP-2 image encoder that fits the DINOv2's weights."""
    config = source.config
    return Blip2VisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.hidden_size * config.mlp_ratio,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=config.layer_norm_eps,
        initializer_range=config.initializer_range,
    )


@torch.no_grad()
def transplant(source: Dinov2Model, target: Blip2VisionModel) -> None:
    """Copy the weights and freeze them; afterwards both give the same states for the same images.

    BLIP-2's encoder has no layer scale, so DINOv2's goes into the matrices before it, and one matrix
    for queries, keys and values where DINOv2 has three.
    """
    given, taken = source.embeddings, target.embeddings
    taken.class_embedding.copy_(given.cls_token)
    taken.position_embedding.copy_(given.position_embeddings)
    taken.patch_embedding.load_state_dict(given.patch_embeddings.projection.state_dict())
    for layer, own in zip(source.encoder.layer, target.encoder.layers, strict=True):
        attention = layer.attention
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        own.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        own.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        _scaled(attention.o_proj, layer.layer_scale1.lambda1, own.self_attn.projection)
        own.mlp.fc1.load_state_dict(layer.mlp.fc1.state_dict())
        _scaled(layer.mlp.fc2, layer.layer_scale2.lambda1, own.mlp.fc2)
        own.layer_norm1.load_state_dict(layer.norm1.state_dict())
        own.layer_norm2.load_state_dict(layer.norm2.state_dict())
    target.post_layernorm.load_state_dict(source.layernorm.state_dict())
    target.requires_grad_(False)


def _scaled(given: nn.Linear, scale: torch.Tensor, taken: nn.Linear) -> None:
    taken.weight.copy_(given.weight * scale[:, None])
    taken.bias.copy_(given.bias * scale)


DINOV2 = Path(__file__).parents[1] / "weights" / "dinov2"


def processor() -> Blip2Processor:
    """Make a processor: words are single tokens, images are prepared as for the frozen DINOv2."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(
        vocab={token: place for place, token in enumerate(tokens)}, model_max_length=_LONGEST
    )
    images = BlipImageProcessor(
        size={"height": INPUT_SIZE, "width": INPUT_SIZE}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    # Without a number of query tokens it adds no placeholders before the text, as retrieval needs.
    return Blip2Processor(images, tokenizer, num_query_tokens=None)


def build_model(dinov2: Dinov2Model, vocabulary: int) -> Blip2ForImageTextRetrieval:
    """Build a Q-Former with its projections, of fresh weights, on the frozen image encoder."""
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


def train(images: LabeledImages, steps: int, out: Path, dinov2: Path = DINOV2) -> None:
    """Train everything but the image encoder, and save."""
    tools = processor()
    vision = Dinov2Model.from_pretrained(dinov2, dtype=torch.float32)
    model = build_model(vision, len(tools.tokenizer)).train()
    heads = AttributeHeads(vision.config.hidden_size, _ATTRIBUTE_WEIGHTS)
    scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    states, labels = frozen_states(model, images), torch.from_numpy(images.labels)
    rng = np.random.default_rng(SEED)

    def objective(batch: NDArray[np.int64], _progress: float) -> Tensor:
        captions, mentioned = zip(*(random_caption(images.designs[i], rng) for i in batch), strict=True)
        with torch.autocast("cpu", torch.bfloat16):
            queries = query_states(model, states[batch].float())
            read = text_vectors(model, tools, captions)
        seen = F.normalize(model.vision_projection(queries.float()), dim=-1)
        # BLIP-2's contrastive score: the best of the queries (arXiv 2301.12597, section 3.1).
        scores = torch.einsum("nqd,md->nqm", seen, read).amax(1)
        logits = scale.clamp(0, _LARGEST_SCALE).exp() * scores
        classification: Tensor = heads(queries.float().mean(1), labels[batch])
        return contrastive_loss(logits, fitting(labels[batch], mentioned)) + classification

    parameters = [*model.parameters(), *heads.parameters(), scale]
    optimize(objective, parameters, Schedule(steps, 64, 2e-3), len(images), SEED)
    model.half().save_pretrained(out)
    tools.save_pretrained(out)


@torch.no_grad()
def frozen_states(model: Blip2ForImageTextRetrieval, images: LabeledImages) -> Tensor:
    """Compute the frozen image encoder's states of every image once, fp16 (n, patches + 1, width)."""
    model.vision_model.eval()
    states = []
    for start in range(0, len(images), _BATCH):
        values = normalized(images.pixels[start : start + _BATCH], IMAGENET_MEAN, IMAGENET_STD)
        states.append(model.vision_model(pixel_values=values).last_hidden_state.half())
    return torch.cat(states)


def query_states(model: Blip2ForImageTextRetrieval, states: Tensor) -> Tensor:
    """Compute the queries' states for the image encoder's (n, patches + 1, width); (n, queries, width)."""
    queries = model.query_tokens.expand(len(states), -1, -1)
    former: Tensor = model.qformer(query_embeds=queries, encoder_hidden_states=states).last_hidden_state
    return former


def text_vectors(model: Blip2ForImageTextRetrieval, tools: Blip2Processor, captions: Sequence[str]) -> Tensor:
    """Compute unit vectors of captions, float32 (n, dimension)."""
    tokens = tools.tokenizer(list(captions), padding=True, return_tensors="pt", return_token_type_ids=False)
    embedded = model.embeddings(input_ids=tokens["input_ids"])
    former = model.qformer(query_embeds=embedded, query_length=0, attention_mask=tokens["attention_mask"])
    return F.normalize(model.text_projection(former.last_hidden_state[:, 0]).float(), dim=-1)


def main(arguments: list[str] | None = None) -> None:
    """Train, save and judge."""
    training = options("Train the demo's BLIP-2 model.", steps=5000, arguments=arguments)
    run(training, "blip2", lambda images, steps: train(images, steps, training.out))


if __name__ == "__main__":
    main()
