"""How good ranked lists are, by trec_eval, the reference implementation, through ir-measures."""

from collections.abc import Mapping, Sequence

import ir_measures
from ir_measures import AP, RR, P, R, nDCG
from ir_measures.measures import Measure

Grades = Mapping[str, int]
"""How well products answer a query, by product id; 0 and what is missing do not answer it."""

_AT = {"precision": P, "recall": R}
_WHOLE = {"map": AP, "mrr": RR}


def measure(
    lists: Mapping[str, Sequence[str]],
    grades: Mapping[str, Grades],
    metrics: Sequence[str],
    relevant_from: int = 1,
) -> dict[str, dict[str, float]]:
    """Measure each query's list of distinct product ids, best first; values in [0, 1] by metric and query.

    Precision and recall count grades of at least `relevant_from`, precision over k even where fewer products
    are relevant; ndcg takes every grade itself as gain, discounted by log2(1 + rank) (Järvelin and
    Kekäläinen, 2002); map and mrr are average precision and reciprocal rank over the whole list, of the same
    grades as precision. Each query needs a product of such a grade.
    """
    named = {_measure(name, relevant_from): name for name in metrics}
    # Ranks as scores: no two are equal, so the order of the lists is the order that is judged.
    run = {
        query: {product: float(len(found) - rank) for rank, product in enumerate(found)}
        for query, found in lists.items()
    }
    judged = {query: dict(grades[query]) for query in lists}
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    if not lists:
        return values
    for each in ir_measures.iter_calc(list(named), judged, run):
        values[named[each.measure]][each.query_id] = each.value
    return values


def _measure(name: str, relevant_from: int) -> Measure:
    base, _, cutoff = name.partition("@")
    measure: Measure
    if base == "ndcg":
        measure = nDCG @ int(cutoff)
    elif cutoff:
        measure = _AT[base](rel=relevant_from) @ int(cutoff)
    else:
        measure = _WHOLE[base](rel=relevant_from)
    return measure
