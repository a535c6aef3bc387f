"""A search through the whole service against the bare call to Milvus, in turns."""

import http.client
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from benchmarks.search_service import null_encoder
from core.types import Vector
from milvus.schema import HIT_FIELDS

LIMIT = 10
WARM_UP = 100
_numbers = itertools.count()
"""Makes the text of each call new, so that no cache answers, also in a second measurement."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians in ms of the pairs' differences, of bare calls, of served calls, and of their stages."""

    added_ms: float
    bare_ms: float
    served_ms: float
    stages_ms: Mapping[str, float]


def overhead(port: int, milvus_uri: str, pairs: int, **options: Any) -> Overhead:
    """Measure pairs of a bare and a served call for the same vector, with one caller."""
    encoder = null_encoder()
    client = MilvusClient(milvus_uri)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    bare, served, stages = [], [], defaultdict[str, list[float]](list)
    for number in itertools.islice(_numbers, WARM_UP + pairs):
        text = f"red dress {number} {number * 7}"
        vector = np.asarray(encoder.encode_texts([text])[0])
        bare.append(_bare_ms(client, encoder.info.collection, vector))
        took, answer = _served_ms(connection, {"query": text, "limit": LIMIT, **options})
        served.append(took)
        for stage, ms in answer["timings_ms"].items():
            stages[stage].append(ms)
    connection.close()
    client.close()
    pairs_ms = np.array([bare, served])[:, WARM_UP:]
    return Overhead(
        added_ms=float(np.median(pairs_ms[1] - pairs_ms[0])),
        bare_ms=float(np.median(pairs_ms[0])),
        served_ms=float(np.median(pairs_ms[1])),
        stages_ms={stage: float(np.median(times[WARM_UP:])) for stage, times in stages.items()},
    )


def _bare_ms(client: MilvusClient, collection: str, vector: Vector) -> float:
    """Time the plain call for the nearest images."""
    started = time.perf_counter()
    (hits,) = client.search(
        collection,
        [vector],
        limit=LIMIT,
        output_fields=HIT_FIELDS,
        search_params={"metric_type": "COSINE", "params": {"ef": 256}},
        consistency_level="Session",
    )
    elapsed_ms = (time.perf_counter() - started) * 1e3
    _check(len(hits))
    return elapsed_ms


def _served_ms(
    connection: http.client.HTTPConnection, body: Mapping[str, Any]
) -> tuple[float, dict[str, Any]]:
    data = json.dumps(body).encode()
    started = time.perf_counter()
    connection.request("POST", "/v1/search", data, {"Content-Type": "application/json"})
    text = connection.getresponse().read()
    elapsed_ms = (time.perf_counter() - started) * 1e3
    answer: dict[str, Any] = json.loads(text)
    _check(len(answer.get("results", [])))
    return elapsed_ms, answer


def _check(found: int) -> None:
    if found != LIMIT:
        raise RuntimeError(f"{found} results in place of {LIMIT}")
