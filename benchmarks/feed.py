"""How well models are fed, in bulk builds and in replicas: `python -m benchmarks.feed`.

No GPU is needed: the models only wait, as long as a GPU would compute. Prints a table with the wanted values and,
as its last line, one JSON object. `benchmarks.feed_bulk` and `benchmarks.feed_serving` say what each figure is.
"""

import json
import os

from benchmarks import feed_bulk, feed_serving

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
    found = {**feed_bulk.figures(), **feed_serving.figures()}
    for name, value in found.items():
        sign, bar = BARS.get(name, ("", None))
        print(f"{name:32} {value:10.3f}  {sign} {'' if bar is None else bar}".rstrip())
    print(json.dumps({**found, "load_before": load_before, "load_after": os.getloadavg()}))


if __name__ == "__main__":
    main()
