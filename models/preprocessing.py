"""Resizing, cropping and normalization as the checkpoint was trained, faster than the libraries' own.

torchvision's antialiased resize of uint8 tensors equals Pillow's within one level and takes a tenth of the time.
Pixels stay uint8 until they are on the device, where `normalize` costs almost nothing.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torchvision.transforms.v2.functional as functional
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode

from models.encoder import Pixels
from models.images import Decoded

Rgb = tuple[float, float, float]
Size = tuple[int, int]

_RGB = 3
"""Mode of torchvision's decoder."""
_LARGEST_WASTE = 8
"""An image whose resized side exceeds the crop by this factor is cropped before it is resized."""


@lru_cache(maxsize=16)
def _on_device(values: Rgb, device: torch.device) -> Tensor:
    """Copy three values once, as (1, 3, 1, 1): a copy from pageable memory makes the GPU's queue wait."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def read_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG file to RGB, (height, width, 3): Pillow's pixels without its two copies of them.

    Raises:
        RuntimeError: the file is damaged or cut off.
    """
    file = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    # The operator itself, for torchvision 0.29 deprecates the function around it and warns at each call. Where a
    # later release has no operator, Pillow reads the file, as it does all that this refuses.
    pixels: Tensor = torch.ops.image.decode_jpeg(file, _RGB, False)
    return pixels.permute(1, 2, 0).numpy()


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Steps from an RGB image to model input. Sizes are (height, width) in pixels.

    `resize` is `squash` (exactly to `size`), `shortest` (short side to size[0], long side rounded down as
    torchvision does), `cover` or `contain` (keep the ratio, cover or fit within `size`, rounded to nearest as
    timm does). Then the center `crop` is cut, or padded with `fill`. The model's values are
    (pixel * `scale` - `mean`) / `std`.
    """

    resize: Literal["squash", "shortest", "cover", "contain"]
    size: Size
    crop: Size
    interpolation: str
    mean: Rgb
    std: Rgb
    scale: float = 1 / 255
    fill: tuple[int, int, int] = (0, 0, 0)
    crop_rounds: bool = True
    """Round an odd margin to the nearest even pixel (torchvision), or down (transformers)."""

    def facts(self) -> dict[str, object]:
        """Return all settings as JSON values, for the fingerprint."""
        return asdict(self)

    def apply(
        self, image: Image.Image | NDArray[np.uint8], span: tuple[float, float] | None = None
    ) -> Pixels:
        """Resize and crop an RGB image, or its pixels (height, width, 3); uint8 (3, crop height, crop width).

        `span` is the height and width of the content where it ends within a pixel.
        """
        if span is None:
            span = (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]
        height, width = self._resized(*span)
        if max(height / self.crop[0], width / self.crop[1]) > _LARGEST_WASTE:
            page = image if isinstance(image, Image.Image) else Image.fromarray(image)
            return self._apply_to_panorama(page, span, (height, width))
        # An array is copied only where it comes from Pillow, whose memory is read-only.
        array = np.array(image) if isinstance(image, Image.Image) else image
        pixels = torch.from_numpy(array).permute(2, 0, 1)
        resized = self._resize(pixels, span, (height, width))
        return np.ascontiguousarray(self._center(resized).numpy())

    def apply_to(self, image: Decoded) -> Pixels:
        """Resize and crop a decoded image as `apply` does."""
        pixels = image.image if image.pixels is None else image.pixels
        return self.apply(pixels, (image.height, image.width))

    def apply_on_device(self, pixels: Tensor) -> Tensor | None:
        """Resize and crop RGB pixels, uint8 (3, height, width), where they lie; None for a panorama.

        On a GPU torch resizes no uint8 and rounds once, at the end: levels differ by one from those of `apply`.
        """
        span = (pixels.shape[1], pixels.shape[2])
        height, width = self._resized(*span)
        if max(height / self.crop[0], width / self.crop[1]) > _LARGEST_WASTE:
            return None
        resized = self._resize(pixels.float(), span, (height, width))
        return self._center(resized.round_().clamp_(0, 255).to(torch.uint8))

    def normalize(self, batch: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn uint8 (n, 3, h, w) into the model's values of the same shape, in float32, then `dtype`."""
        mean, std = _on_device(self.mean, batch.device), _on_device(self.std, batch.device)
        return batch.float().mul_(self.scale).sub_(mean).div_(std).to(dtype)

    def _resize(self, pixels: Tensor, span: tuple[float, float], size: Size) -> Tensor:
        if span == tuple(pixels.shape[-2:]):
            mode = InterpolationMode(self.interpolation)
            resized: Tensor = functional.resize(pixels, list(size), interpolation=mode, antialias=True)
            return resized
        # A scale can express where the content ends, a size cannot. The part of a pixel adds less than one to
        # the product with the sides, and interpolate rounds down.
        scale = tuple(now / before for now, before in zip(size, span, strict=True))
        return interpolate(pixels[None], scale_factor=scale, mode=self.interpolation, antialias=True)[0]

    def _resized(self, height: float, width: float) -> Size:
        if self.resize == "squash":
            return self.size
        if self.resize == "shortest":
            edge = self.size[0]
            return (
                (int(edge * height / width), edge) if width <= height else (edge, int(edge * width / height))
            )
        ratios = (height / self.size[0], width / self.size[1])
        ratio = min(ratios) if self.resize == "cover" else max(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _margins(self, height: int, width: int) -> Size:
        """Return the rows above and the columns left of the crop; negative where it must be padded."""
        return self._margin(height - self.crop[0]), self._margin(width - self.crop[1])

    def _margin(self, surplus: int) -> int:
        if surplus < 0:
            return -(-surplus // 2)
        return round(surplus / 2) if self.crop_rounds else surplus // 2

    def _center(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        top, left = self._margins(height, width)
        cut = pixels[:, max(top, 0) : max(top, 0) + self.crop[0], max(left, 0) : max(left, 0) + self.crop[1]]
        if cut.shape[-2:] == self.crop:
            return cut
        page = (
            torch.tensor(self.fill, dtype=torch.uint8, device=pixels.device)
            .view(3, 1, 1)
            .repeat(1, *self.crop)
        )
        down, right = max(-top, 0), max(-left, 0)
        page[:, down : down + cut.shape[1], right : right + cut.shape[2]] = cut
        return page

    def _apply_to_panorama(self, image: Image.Image, span: tuple[float, float], resized: Size) -> Pixels:
        """Resize only what the crop keeps: a line of 1 x 20,000 pixels would grow to gigabytes."""
        height, width = resized
        top, left = (max(margin, 0) for margin in self._margins(height, width))
        rows, columns = min(self.crop[0], height), min(self.crop[1], width)
        to_y, to_x = span[0] / height, span[1] / width
        box = (left * to_x, top * to_y, (left + columns) * to_x, (top + rows) * to_y)
        part = image.resize((columns, rows), Image.Resampling[self.interpolation.upper()], box=box)
        return np.ascontiguousarray(self._center(torch.from_numpy(np.array(part)).permute(2, 0, 1)).numpy())
