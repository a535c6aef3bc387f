"""How well models are fed, in bulk builds and in replicas: `python -m benchmarks.feed`.

No GPU is needed: the models only wait, as long as a GPU would compute. Prints a table with the wanted values and,
as its last line, one JSON object. `benchmarks.feed_bulk` and `benchmarks.feed_serving` say what each figure is.
"""

import json
import os
import sys
from importlib import import_module

from benchmarks import feed_bulk

BARS = {
    "bulk_ms_an_image": ("<=", 0.15),
    "bulk_decode_speedup": (">=", 1.8),
    "bulk_busy": (">=", 0.95),
    "serving_ms_an_image": ("<=", 0.4),
    "serving_busy": (">=", 0.9),
}


def main() -> None:
    """Measure both, one after the other."""
    load_before = os.getloadavg()
    found = {**feed_bulk.figures(), **_serving()}
    for name, value in found.items():
        sign, bar = BARS.get(name, ("", None))
        print(f"{name:32} {value:10.3f}  {sign} {'' if bar is None else bar}".rstrip())
    print(json.dumps({**found, "load_before": load_before, "load_after": os.getloadavg()}))


def _serving() -> dict[str, float]:
    try:
        found: dict[str, float] = import_module("benchmarks.feed_serving").figures()
    except ModuleNotFoundError:
        print("benchmarks.feed_serving is not there yet: only builds are measured", file=sys.stderr)
        return {}
    return found


if __name__ == "__main__":
    main()
