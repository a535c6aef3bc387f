"""Compare the demo's models and their ensembles on its labelled queries: `python -m demo.evaluate`."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from core.fusion import fuse_rrf, fuse_weighted, normalised_weights
from core.types import Hit
from demo.catalog import demo_products
from demo.queries import DemoQuery, picture_queries, word_queries
from demo.ranking import ndcg, precision, ranked_products
from demo.retrieval import embed_pictures, embed_words
from models.config import EncoderConfig, Family
from models.encoder import Encoder
from models.registry import load_encoder

FAMILIES: Mapping[str, Family] = {
    "openclip": "openclip",
    "dinov2": "dinov2",
    "dinov2_large": "dinov2",
    "blip2": "blip2",
    "timm": "timm",
}
_CANDIDATE_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_TUNING_ROUNDS = 2
_TUNING, _JUDGED = slice(0, None, 2), slice(1, None, 2)

Lists = Mapping[str, Sequence[Sequence[Hit]]]
"""Each model's ranked products, one list a query."""
Fusion = Callable[[Mapping[str, Sequence[Hit]], Mapping[str, float]], list[Hit]]


def main() -> None:
    """Print one table for words and one for pictures."""
    options = _options()
    encoders = [_load(options.weights, name) for name in options.models if (options.weights / name).is_dir()]
    products = list(demo_products(options.seed, options.products))
    files = [picture for product in products for picture in product.pictures]
    owners = [product.product_id for product in products for _ in product.pictures]
    gallery = {encoder.info.name: embed_pictures(encoder, files) for encoder in encoders}
    for title, queries in (
        ("words", word_queries(options.seed, options.products)),
        ("pictures", picture_queries(options.seed, options.products)),
    ):
        lists = {
            encoder.info.name: [
                ranked_products(row, owners)
                for row in _embed(encoder, queries) @ gallery[encoder.info.name].T
            ]
            for encoder in encoders
            if title == "pictures" or "text" in encoder.info.modalities
        }
        if lists:
            Console().print(_table(title, lists, queries))


def _table(title: str, lists: Lists, queries: Sequence[DemoQuery]) -> Table:
    """Figures over every second query; the weights of the last line were tuned on the others."""
    table = Table("model", "P@10", "nDCG@10", title=f"{len(queries[_JUDGED])} queries by {title}")
    for name, found in lists.items():
        table.add_row(name, *_figures({name: found[_JUDGED]}, queries[_JUDGED], fuse_rrf, {name: 1.0}))
    if len(lists) > 1:
        _add_ensembles(table, lists, queries)
    return table


def _add_ensembles(table: Table, lists: Lists, queries: Sequence[DemoQuery]) -> None:
    even = dict.fromkeys(lists, 1.0)
    tuned = normalised_weights(_tune(_part(lists, _TUNING), queries[_TUNING]), list(lists))
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in tuned.items())
    for name, fusion, weights in (
        ("RRF of all", fuse_rrf, even),
        ("weighted, all alike", fuse_weighted, even),
        (f"weighted, tuned: {told}", fuse_weighted, tuned),
    ):
        table.add_row(name, *_figures(_part(lists, _JUDGED), queries[_JUDGED], fusion, weights))


def _figures(
    lists: Lists, queries: Sequence[DemoQuery], fusion: Fusion, weights: Mapping[str, float]
) -> tuple[str, str]:
    ranked = _fused(lists, len(queries), fusion, weights)
    precisions = [precision(found, query.relevant) for found, query in zip(ranked, queries, strict=True)]
    return f"{np.mean(precisions):.3f}", f"{_mean_ndcg(ranked, queries):.3f}"


def _tune(lists: Lists, queries: Sequence[DemoQuery]) -> dict[str, float]:
    """Weights of the members by coordinate ascent on nDCG@10."""
    weights = dict.fromkeys(lists, 1.0)
    for name in list(lists) * _TUNING_ROUNDS:
        trials = [weights | {name: weight} for weight in _CANDIDATE_WEIGHTS]
        possible = [trial for trial in trials if any(trial.values())]
        weights = max(
            possible,
            key=lambda trial: _mean_ndcg(_fused(lists, len(queries), fuse_weighted, trial), queries),
        )
    return weights


def _fused(lists: Lists, count: int, fusion: Fusion, weights: Mapping[str, float]) -> list[list[str]]:
    return [
        [hit.product_id for hit in fusion({name: found[i] for name, found in lists.items()}, weights)]
        for i in range(count)
    ]


def _mean_ndcg(ranked: Sequence[Sequence[str]], queries: Sequence[DemoQuery]) -> float:
    return float(np.mean([ndcg(found, query.grades) for found, query in zip(ranked, queries, strict=True)]))


def _part(lists: Lists, chosen: slice) -> Lists:
    return {name: found[chosen] for name, found in lists.items()}


def _embed(encoder: Encoder, queries: Sequence[DemoQuery]) -> np.typing.NDArray[np.float32]:
    words = [query.words for query in queries if query.words is not None]
    pictures = [query.picture for query in queries if query.picture is not None]
    return embed_words(encoder, words) if words else embed_pictures(encoder, pictures)


def _load(weights: Path, name: str) -> Encoder:
    config = EncoderConfig(name=name, family=FAMILIES[name], checkpoint=str(weights / name), threads=1)
    return load_encoder(config)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--models", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--products", type=int, default=500, help="of the catalogue (default %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the catalogue (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
