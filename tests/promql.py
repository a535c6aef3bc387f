"""Which metrics a query of Prometheus reads, and which labels it expects of each."""

from collections.abc import Iterator
from typing import Any

import promql_parser


def selections(query: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Parse a query; gives every metric it names with the labels that it is matched and grouped by.

    Raises:
        ValueError: this is no PromQL.
    """
    yield from _selections(promql_parser.parse(query), frozenset())


def conditions(query: str) -> Iterator[tuple[str, str, str]]:
    """Parse a query; gives every metric it names with each label that it is matched by and the value or pattern.

    Raises:
        ValueError: this is no PromQL.
    """
    for selector in _selectors(promql_parser.parse(query)):
        for matcher in selector.matchers.matchers:
            yield selector.name, matcher.name, matcher.value


def _selectors(node: Any) -> Iterator[Any]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    for inner in _inner(node):
        yield from _selectors(inner)


def _selections(node: Any, labels: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, labels | {matcher.name for matcher in node.matchers.matchers}
        return
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        assert node.modifier.type == promql_parser.AggModifierType.By, "name the labels that stay"
        labels |= set(node.modifier.labels)
    if isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
        labels |= set(node.modifier.matching.labels)
    for inner in _inner(node):
        yield from _selections(inner, labels)


def _inner(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    return [node.expr] if hasattr(node, "expr") else []
