"""The checkpoints that docs/models.md names are known to their libraries, with the dimension that it says."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
import yaml
from huggingface_hub.utils import validate_repo_id
from transformers import CONFIG_MAPPING, MODEL_MAPPING

from models.config import PACKAGED_WEIGHTS, EncoderConfig
from models.openclip import _resolve_tag
from models.timm import _hub_id
from tests.support.code_blocks import code_blocks

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
ROW = re.compile(
    r"^\| ([^|]+) \| `(\{.+\})` \| (\d+) \| (yes|no) \| ([^|]+) \| \[[^]]+\]\((\S+)\) \|$", re.MULTILINE
)
TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai/clip-vit-large-patch14": ("clip", {"projection_dim": 768}),
    "patrickjohncyh/fashion-clip": ("clip", {}),
    "google/siglip2-base-patch16-224": ("siglip", {}),
    "facebook/dinov2-base": ("dinov2", {}),
    "facebook/dinov2-large": ("dinov2", {"hidden_size": 1024}),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": ("dinov3_vit", {"hidden_size": 768}),
    "facebook/dinov3-convnext-tiny-pretrain-lvd1689m": ("dinov3_convnext", {}),
}
"""Type of each checkpoint of transformers, with what its config.json says otherwise than the type's defaults."""
HUB_ARCHITECTURES = {"Marqo/marqo-fashionSigLIP": "ViT-B-16-SigLIP"}
"""Hub ids of open_clip's format, with the architecture that each was trained from."""


@dataclass(frozen=True, slots=True)
class Line:
    config: EncoderConfig
    dimension: int
    reads: bool
    license: str
    source: str


def lines(*families: str) -> list[Any]:
    found = [
        Line(
            EncoderConfig.model_validate(yaml.safe_load(args)),
            int(dimension),
            reads == "yes",
            license,
            source,
        )
        for _, args, dimension, reads, license, source in ROW.findall(PAGE.read_text())
    ]
    return [
        pytest.param(each, id=each.config.checkpoint)
        for each in found
        if not families or each.config.family in families
    ]


def test_the_table_has_a_line_for_what_people_use() -> None:
    rows = [row for row in PAGE.read_text().splitlines() if "family:" in row and row.startswith("|")]
    assert len(lines()) == len(rows) >= 20
    families = {each.values[0].config.family for each in lines()}
    assert families == {"openclip", "transformers", "dinov2", "blip2", "timm"}


@pytest.mark.parametrize("line", lines("openclip"))
def test_a_checkpoint_of_openclip_is_in_its_registry(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = HUB_ARCHITECTURES.get(line.config.checkpoint, line.config.checkpoint)
    if line.config.pretrained:
        assert (line.config.checkpoint, line.config.pretrained) in open_clip.list_pretrained()
        monkeypatch.setattr("open_clip.download_pretrained", lambda _tag: "weights")
        assert _resolve_tag(line.config)[0] == line.config.checkpoint
    else:
        validate_repo_id(line.config.checkpoint)
    described = open_clip.get_model_config(architecture)
    assert (described["embed_dim"], line.reads) == (line.dimension, "text_cfg" in described)


@pytest.mark.parametrize("line", lines("timm"))
def test_a_checkpoint_of_timm_is_in_its_registry(line: Line) -> None:
    architecture = PACKAGED_WEIGHTS.get(line.config.checkpoint, (line.config.checkpoint, ""))[0]
    if line.config.checkpoint not in PACKAGED_WEIGHTS:
        assert _hub_id(line.config.checkpoint) == f"timm/{line.config.checkpoint}"
        assert line.source == f"https://huggingface.co/timm/{line.config.checkpoint}"
    known = timm.models.get_pretrained_cfg(architecture)
    assert known.license == line.license.lower().replace(" ", "-")
    with torch.device("meta"):
        assert timm.create_model(architecture, num_classes=0).num_features == line.dimension
    assert not line.reads


@pytest.mark.parametrize("line", lines("transformers", "dinov2"))
def test_a_checkpoint_of_transformers_has_a_type_with_these_towers(line: Line) -> None:
    validate_repo_id(line.config.checkpoint)
    model_type, differences = TYPES[line.config.checkpoint]
    config = CONFIG_MAPPING[model_type](**differences)
    model_class = MODEL_MAPPING[type(config)]
    assert hasattr(model_class, "get_text_features") == line.reads
    assert dimension(model_class, config) == line.dimension


def dimension(model_class: Any, config: Any) -> int:
    """Run an image through the model without memory, as its configuration says."""
    with torch.device("meta"), torch.inference_mode():
        model = model_class(config).eval()
        vision = getattr(config, "vision_config", config)
        side = getattr(vision, "image_size", 224)
        image = torch.zeros((1, 3, side, side))
        return int(getattr(model, "get_image_features", model)(pixel_values=image).pooler_output.shape[1])


@pytest.mark.parametrize("line", lines("blip2"))
def test_a_checkpoint_of_blip2_has_the_dimension_of_its_head(line: Line) -> None:
    validate_repo_id(line.config.checkpoint)
    config = transformers.Blip2Config()
    head = config.image_text_hidden_size if line.reads else config.qformer_config.hidden_size
    assert head == line.dimension


@pytest.mark.parametrize("line", [*lines("transformers", "dinov2", "blip2"), *lines("openclip")])
def test_the_source_is_the_page_of_the_weights(line: Line) -> None:
    if line.config.pretrained is None:
        assert line.source == f"https://huggingface.co/{line.config.checkpoint}"
        return
    tag = open_clip.get_pretrained_cfg(line.config.checkpoint, line.config.pretrained)
    assert line.source == f"https://huggingface.co/{tag['hf_hub'].rstrip('/')}"


@cache
def shown() -> list[EncoderConfig]:
    blocks = [
        yaml.safe_load(block.text) for block in code_blocks("docs/models.md") if block.language == "yaml"
    ]
    return [EncoderConfig.model_validate(block["args"]) for block in blocks]


def test_the_examples_of_the_page_can_be_configured() -> None:
    assert {each.family for each in shown()} == {"transformers", "timm"}
    assert any(each.text_template for each in shown())
