"""Job `evaluate`: compare versions of models, and ensembles of them, on queries with known answers."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from catalog.sources.folder import check_opened
from core.config import EvaluationConfig
from core.errors import InvalidInput
from core.jobs import EvaluateArgs
from core.ports import VectorStore
from core.store_check import StoreCheck
from core.types import Hit
from jobs.evaluation.queries import JudgedQuery, labels_of, queries_for
from jobs.evaluation.ranking import (
    Encode,
    EncodedInputs,
    Match,
    PooledStore,
    encode_on_cluster,
    match_on_cluster,
    pool_of,
    rank,
    rerank,
)
from jobs.evaluation.report import store_files
from jobs.evaluation.result import (
    Bootstrap,
    Comparison,
    EvaluationResult,
    QualityGateDecision,
    Values,
    comparison,
    decide,
    figures,
    measure,
)
from jobs.runner.context import JobContext
from jobs.runner.settings import EncoderSettings
from milvus.store import MilvusStore

logger = logging.getLogger(__name__)

SHOWN_HITS = 6
"""First products of each list that a result keeps, for the report to show."""

_NAMED_QUERIES = 5

ShownHits = Mapping[str, Mapping[str, tuple[Hit, ...]]]


def evaluate(
    context: JobContext,
    args: EvaluateArgs,
    encode: Encode | None = None,
    candidate: EncoderSettings | None = None,
    match: Match | None = None,
) -> EvaluationResult:
    """Search for every query with every system, and measure what they find.

    Each version is searched in its own collection, live or not. Where one is incomplete, as after `sample`,
    all search among products that every collection holds, so that none has an easier task. `candidate`
    replaces the one that the arguments describe.

    Raises:
        InvalidInput: the arguments or the labeled queries are wrong, or too few can be answered; or a model without
            a matching head is to re-rank, or queries without text.
        Conflict: a version has no collection yet, or the job was canceled.
        ConfigError: a model does not load.
        StoreUnknown: the store is not the one that the ledger speaks of.
        Unavailable: a model or the store is away.
    """
    settings, catalog = context.settings, context.catalog
    encode, match = encode or encode_on_cluster(settings), match or match_on_cluster(settings)
    config = _config(settings.evaluation, args)
    compared = comparison(settings, args, _indexed_models(context), candidate)
    context.run.report(stage="reading the queries")
    labels = None if config.queries is None else labels_of(config.queries, catalog, config.relevant_from)
    context.run.report(stage="loading the models")
    infos = {label: encode(version, []).info for label, version in compared.versions.items()}
    pool = pool_of(catalog, list(infos.values()), config, labels.products if labels else set())
    queries = queries_for(config, catalog, settings.images, labels, pool)
    if compared.matcher is not None and not any(query.text for query in queries):
        raise InvalidInput("re-ranking needs queries with text, and these have none").at("rerank")
    encoded = _encode_all(context, compared, queries, encode)
    store = MilvusStore(settings.milvus) if pool is None else PooledStore(settings.milvus, pool)
    try:
        StoreCheck(store, catalog.ledger).require()
        values, hits = _search_all(context, compared, encoded, queries, store, config, match)
    finally:
        store.close()
    how = Bootstrap(config.resamples, config.confidence, config.seed)
    context.run.report(stage="summing up")
    return EvaluationResult(
        config=config,
        versions=infos,
        systems=compared.systems,
        baseline=compared.baseline,
        candidate=compared.candidate,
        queries=tuple(queries),
        values=values,
        hits=hits,
        figures=figures(values, queries, config.metrics, how),
        decision=_decision(compared, values, config, how),
        pool=None if pool is None else len(pool),
        notes=(*(labels.notes if labels else ()), *_unanswered(queries, values, config)),
    )


def _config(configured: EvaluationConfig, args: EvaluateArgs) -> EvaluationConfig:
    drawn = args.sample is not None and args.queries is None
    return configured.model_copy(
        update={
            "queries": None if drawn else args.queries or configured.queries,
            "sample": args.sample or configured.sample,
            "seed": configured.seed if args.seed is None else args.seed,
        }
    )


def _indexed_models(context: JobContext) -> list[str]:
    """List the configured encoders with a collection that holds images; captioners have none."""
    ledger = context.catalog.ledger
    known = {info.name for info in ledger.versions() if ledger.counts(info.collection).indexed}
    return [name for name in context.settings.encoders if name in known]


def _encode_all(
    context: JobContext, compared: Comparison, queries: Sequence[JudgedQuery], encode: Encode
) -> dict[str, EncodedInputs]:
    inputs = list(dict.fromkeys(part for query in queries for part in query.inputs))
    encoded = {}
    for label, version in compared.versions.items():
        context.run.check()
        context.run.report(stage=f"encoding with {label}", total=len(inputs))
        encoded[label] = EncodedInputs(version.config.name, inputs, encode(version, inputs))
    return encoded


def _search_all(
    context: JobContext,
    compared: Comparison,
    encoded: Mapping[str, EncodedInputs],
    queries: Sequence[JudgedQuery],
    store: VectorStore,
    config: EvaluationConfig,
    match: Match,
) -> tuple[Values, ShownHits]:
    grades = {query.query_id: query.grades for query in queries}
    first = [system for system in compared.systems if system.rerank is None]
    ranked = {}
    for done, system in enumerate(first):
        context.run.report(stage=f"searching with {system.name}", done=done, total=len(first))
        ranked[system.name] = rank(system, encoded, store, queries, config.depth, context.run.check)
    if compared.matcher is not None:
        context.run.report(stage=f"re-ranking with {compared.matcher.config.name}")
        ranked |= rerank(compared.systems, ranked, queries, context.catalog, partial(match, compared.matcher))
    values, shown = {}, {}
    for name, lists in ranked.items():
        products = {query: [hit.product_id for hit in hits] for query, hits in lists.items()}
        values[name] = measure(products, grades, config.metrics, config.relevant_from)
        shown[name] = {query: tuple(hits[:SHOWN_HITS]) for query, hits in lists.items()}
    return values, shown


def _unanswered(queries: Sequence[JudgedQuery], values: Values, config: EvaluationConfig) -> tuple[str, ...]:
    answered = {query for by_metric in values.values() for query in by_metric[config.metrics[0]]}
    lost = [query.query_id for query in queries if query.query_id not in answered]
    if not lost:
        return ()
    few = ", ".join(lost[:_NAMED_QUERIES])
    return (f"{len(lost)} queries that no system could answer, such as those with a broken image: {few}",)


def _decision(
    compared: Comparison, values: Values, config: EvaluationConfig, how: Bootstrap
) -> QualityGateDecision | None:
    if compared.baseline is None or compared.candidate is None:
        return None
    metric = config.quality_gate.metric
    baseline, candidate = (values[label][metric] for label in (compared.baseline, compared.candidate))
    return decide(baseline, candidate, config.quality_gate, how)


def evaluate_job(context: JobContext, args: EvaluateArgs) -> dict[str, Any]:
    """Compare and store the report; return the figures and the names of the files.

    Raises:
        VitrineError: as `evaluate`.
        InvalidInput: a caller of the API names a file that the configuration does not open to it.
    """
    if not context.at_shell:
        check_opened(args, context.settings.imports.folders)
    result = evaluate(context, args)
    if result.decision is not None:
        logger.info("quality gate %s", result.decision.reason)
    context.run.report(stage="writing the report")
    return result.summary() | store_files(result, context.catalog, context.settings.images)
