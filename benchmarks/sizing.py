"""Memory of models, and images that they embed a second: `python -m benchmarks.sizing [MODEL …]`.

Each model is loaded by Vitrine's own loader, from a checkpoint of random weights at full size, in a process of
its own. Prints a line of JSON a model and precision:

- `weights_mib`: parameters times bytes, reckoned; `loaded_mib`: what the process took more once it was loaded.
- `peak_mib`: the most that the process ever held while it ran, its libraries included.
- `images_per_s`: decoding, preprocessing and forward pass of small images, by batch size, the best of several
  rounds; `decode_ms`: decoding an image of 1000 x 1000 px, JPEG, on one core.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.architectures import ARCHITECTURES
from benchmarks.images import shop_jpeg, small_jpegs
from models.config import EncoderConfig, Precision
from models.encoder import Encoder, load_encoder

PRECISIONS: dict[str, Sequence[Precision]] = {"blip2": ("bf16", "int8")}
BATCHES = (1, 8, 32)
_MIB = 2**20
_PATIENCE_S = 20.0


def main() -> None:
    """Measure the models that are named, all by default."""
    options = _options()
    if options.measure:
        print(json.dumps(_measure(*options.measure)))
        return
    for name in options.models or ARCHITECTURES:
        with tempfile.TemporaryDirectory(prefix="vitrine-sizing-") as folder:
            checkpoint = ARCHITECTURES[name].write_checkpoint(Path(folder) / name)
            for precision in [options.precision] if options.precision else PRECISIONS.get(name, ("bf16",)):
                # A process of its own, whose memory is this model's and no other's.
                command = [sys.executable, "-m", "benchmarks.sizing", "--measure", name, precision]
                subprocess.run([*command, str(checkpoint)], check=True)


def _measure(name: str, precision: Precision, checkpoint: str) -> dict[str, Any]:
    architecture = ARCHITECTURES[name]
    torch.set_num_threads(os.cpu_count() or 1)
    before = _resident()
    encoder = load_encoder(
        EncoderConfig(
            name="sized", family=architecture.family, checkpoint=checkpoint, precision=precision, device="cpu"
        )
    )
    loaded = _resident() - before
    rates = {batch: round(_images_per_s(encoder, batch), 2) for batch in BATCHES}
    return {
        "model": architecture.name,
        "precision": precision,
        "parameters": architecture.parameters(),
        "weights_mib": round(architecture.weight_bytes(precision) / _MIB),
        "loaded_mib": round(loaded / _MIB),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB),
        "images_per_s": rates,
        "decode_ms": round(_decode_ms(encoder), 1),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _images_per_s(encoder: Encoder, batch: int, rounds: int = 3) -> float:
    files = small_jpegs(batch)
    best, begun = 0.0, time.perf_counter()
    # The first round warms up.
    for _ in range(rounds + 1):
        started = time.perf_counter()
        encoder.encode_images([encoder.decode(data) for data in files])
        best = max(best, batch / (time.perf_counter() - started))
        if time.perf_counter() - begun > _PATIENCE_S:
            break
    return best


def _decode_ms(encoder: Encoder, rounds: int = 30) -> float:
    data = shop_jpeg()
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        encoder.decode(data)
        took.append(time.perf_counter() - started)
    return sorted(took)[rounds // 2] * 1e3


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--precision", help="this one only; default: bf16, and int8 of BLIP-2")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
