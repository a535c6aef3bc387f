"""A child that reads the image files named on its input, within limits, and prints one line of JSON each.

It lists what Vitrine refuses, with the reason and with what Pillow alone says of the file. It dies at a file that
takes too long or too much memory.
"""

import io
import json
import resource
import signal
import sys
import warnings
from pathlib import Path

from PIL import Image

from core.errors import InputTooLarge, VitrineError
from models.images import ImageLimits, decoding, inspect_image

SECONDS, BYTES = 10, 4 * 2**30
LIMITS = ImageLimits()


def outcome(data: bytes) -> dict[str, str]:
    """Return the fate of a file: taken, refused or escaped; by its limits, if they refuse it."""
    try:
        inspect_image(data, LIMITS)
        with decoding(data, LIMITS, target=224):
            return {"fate": "taken"}
    except VitrineError as error:
        # What is larger than the limits may be sound: it is refused for that alone, and not tried without them.
        format_alone = "" if isinstance(error, InputTooLarge) else alone(data)
        return {"fate": "refused", "reason": error.message, "alone": format_alone}
    except BaseException as error:
        return {"fate": "escaped", "reason": repr(error)}


def alone(data: bytes) -> str:
    """Return the format that Pillow reads the file as, or nothing."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return str(image.format)
    except Exception:  # decoders of hostile bytes raise anything
        return ""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    for line in sys.stdin:
        # Of processor time, so that a busy machine fails nothing.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        print(json.dumps(outcome(Path(line.rstrip("\n")).read_bytes())), flush=True)
