"""Any sequence of calls on the catalog, held against a small model of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from catalog.opening import Catalog
from catalog.products import DeleteProduct, Operation, PatchProduct, PutProduct, StoredProduct
from catalog.tables import EmbeddingRow, ProductRow
from core.errors import NotFound
from core.types import IndexItem, LedgerCounts, Product
from tests.support.catalog_fixtures import BLUE, GREEN, RED, encoder

VERSIONS = (encoder("one", "0" * 12), encoder("two", "0" * 12))
"""The first is registered, so that writes of products open its rows; the second is not."""
COLLECTIONS = tuple(each.collection for each in VERSIONS)

Write = tuple[Literal["write"], list[Operation]]
Bulk = tuple[Literal["open", "settle", "fail"], str, list[int]]
Whole = tuple[Literal["remove", "retry", "reset", "index"], str]
Step = Write | Bulk | Whole

_names = st.sampled_from(["p", "q"])
_collections = st.sampled_from(COLLECTIONS)
_images = st.none() | st.lists(st.sampled_from([RED, BLUE, GREEN]), max_size=3)
_attributes = st.sampled_from([{}, {"a": 0}, {"a": 1}])
_changes = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(["new", "", None]),
        "attributes": st.sampled_from([None, {"a": None}, {"a": 1}, {"b": None}, {}]),
    },
)
_operations = st.one_of(
    st.builds(PutProduct, _names, st.just(""), st.just(""), _attributes, _images),
    st.builds(PatchProduct, _names, _changes),
    st.builds(DeleteProduct, _names),
)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(_operations, min_size=1, max_size=3)),
        st.tuples(
            st.sampled_from(["open", "settle", "fail"]),
            _collections,
            st.lists(st.integers(0, 30), min_size=1, max_size=4),
        ),
        st.tuples(st.sampled_from(["remove", "retry", "reset", "index"]), _collections),
    ),
    max_size=25,
)


@dataclass
class Model:
    """What the catalog should say."""

    products: dict[str, Product] = field(default_factory=dict)
    current: dict[str, int] = field(default_factory=dict)
    """The revision of every image that exists, by image id."""
    highest: dict[str, int] = field(default_factory=dict)
    """The highest revision that an image id ever had."""
    seen: list[IndexItem] = field(default_factory=list)
    ledger: dict[str, dict[tuple[str, int], str]] = field(
        default_factory=lambda: {name: {} for name in COLLECTIONS}
    )

    def missing(self, collection: str) -> list[tuple[int, str]]:
        rows = self.ledger[collection]
        return sorted(
            (revision, image)
            for image, revision in self.current.items()
            if rows.get((image, revision), "open") == "open"
        )

    def obsolete(self, collection: str) -> list[str]:
        rows, waiting, found = self.ledger[collection], set[str](), []
        for image, revision in sorted(rows):
            now = self.current.get(image)
            if now == revision:
                continue
            if now is not None and rows.get((image, now), "open") == "open" and image not in waiting:
                waiting.add(image)
            else:
                found.append(f"{image}:{revision}")
        return found

    def keys(self) -> list[str]:
        return [item.key for item in self.seen]

    def indexed(self, collection: str) -> set[str]:
        rows = self.ledger[collection].items()
        return {f"{image}:{revision}" for (image, revision), state in rows if state == "settled"}

    def copies(self, collection: str) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for image, revision in sorted(self.ledger[collection], reverse=True):
            if self.current.get(image) != revision:
                found.setdefault(image, []).append((collection, f"{image}:{revision}"))
        return found

    def counts(self, collection: str) -> LedgerCounts:
        states = [self.ledger[collection].get(key, "open") for key in self.current.items()]
        return LedgerCounts(
            len(states), states.count("settled"), states.count("failed"), states.count("open")
        )


ONE, TWO = COLLECTIONS
FIRST: Step = ("write", [PutProduct("p", "", "", {"a": 0}, [RED, BLUE])])
OPEN, SETTLE, FAIL, CHANGE = (
    ("open", ONE, [0, 1]),
    ("settle", ONE, [0, 1]),
    ("fail", ONE, [0, 1]),
    ("write", [PatchProduct("p", {"attributes": {"a": 1}})]),
)


def check_any_sequence(catalog: Catalog, max_examples: int = 40) -> None:
    """Run random sequences; after every step all answers of the catalog equal the model's."""

    @settings(max_examples=max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(steps)
    # What is settled and opened again is in doubt; a failure changes nothing that is settled.
    @example([FIRST, ("index", ONE), ("open", ONE, [0]), FAIL])
    # What became obsolete meanwhile is not settled, neither before nor after its row is removed.
    @example([FIRST, OPEN, CHANGE, SETTLE, ("remove", ONE), SETTLE])
    # Quarantine ends when it is asked for, when the row is opened and when the image changes.
    @example([FIRST, FAIL, ("fail", TWO, [0]), ("retry", ONE)])
    @example([FIRST, FAIL, ("open", ONE, [0]), CHANGE, ("index", ONE)])
    # The newest revision that is in is the one that counts.
    @example([FIRST, ("index", ONE), CHANGE, ("open", ONE, [2, 3]), ("settle", ONE, [2, 3])])
    # Collections are independent.
    @example([FIRST, ("index", ONE), ("open", TWO, [0, 1]), ("reset", ONE), ("settle", TWO, [0, 1])])
    # Operations on one product follow each other within a batch, and a product that was deleted begins anew.
    @example([FIRST, ("index", ONE), ("write", [DeleteProduct("p"), *FIRST[1], PatchProduct("p", {})])])
    # What fails of an image that has changed meanwhile is no quarantine.
    @example([FIRST, ("open", TWO, [0, 1]), CHANGE, ("fail", TWO, [0, 1])])
    def run(sequence: list[Step]) -> None:
        with catalog.engine.begin() as connection:
            connection.execute(delete(EmbeddingRow))
            connection.execute(delete(ProductRow))
        model = Model()
        for step in sequence:
            _take(step, catalog, model)
            for info in VERSIONS:
                collection = info.collection
                found = catalog.ledger.missing(collection, 100)
                assert sorted((each.revision, each.image_id) for each in found) == model.missing(collection)
                assert sorted(catalog.ledger.obsolete(collection, 100)) == sorted(model.obsolete(collection))
                assert catalog.ledger.obsolete(collection, 100, within=("", "g")) == model.obsolete(
                    collection
                )
                assert catalog.ledger.counts(collection) == model.counts(collection)
                assert catalog.ledger.copies(info, [*model.highest]) == model.copies(collection)
                assert catalog.ledger.indexed(collection, model.keys()) == model.indexed(collection)

    catalog.ledger.register(VERSIONS[0])
    run()


def _take(step: Step, catalog: Catalog, model: Model) -> None:
    match step:
        case ("write", operations):
            _change(catalog, model, operations)
        case ("open" | "settle" | "fail" as verb, collection, indexes):
            chosen = [model.seen[index % len(model.seen)] for index in indexes if model.seen]
            _write(verb, catalog, model, collection, chosen)
        case ("index", collection):
            items = catalog.ledger.missing(collection, 100)
            _write("open", catalog, model, collection, items)
            _write("settle", catalog, model, collection, items)
        case (verb, collection):
            _complete(verb, catalog, model, collection)


def _change(catalog: Catalog, model: Model, operations: Sequence[Operation]) -> None:
    outcomes = catalog.products.write(operations)
    before = set(model.current.items())
    works = {}
    for operation, outcome in zip(operations, outcomes, strict=True):
        name, previous = operation.product_id, model.products.get(operation.product_id)
        if previous is None and not isinstance(operation, PutProduct):
            assert isinstance(outcome, NotFound)
            continue
        assert isinstance(outcome, StoredProduct)
        works[name] = outcome.work
        for image in previous.images if previous else ():
            del model.current[image.image_id]
        if isinstance(operation, DeleteProduct):
            assert outcome.product is None
            del model.products[name]
            continue
        assert outcome.product is not None
        assert outcome.created == (previous is None)
        _check_product(operation, previous, outcome.product, model)
        model.products[name] = outcome.product
        model.current |= {each.image_id: each.revision for each in outcome.product.images}
        model.highest |= model.current
    assert catalog.products.get_many(["p", "q"]) == dict(sorted(model.products.items()))
    left = before - set(model.current.items())
    for collection, rows in model.ledger.items():
        closed = {f"{key[0]}:{key[1]}" for key in left if rows.get(key, "open") != "open"}
        assert closed == {key for work in works.values() for key in work.obsolete.get(collection, ())}
        rows |= dict.fromkeys(left & rows.keys(), "open")
        written = [
            (each.image_id, each.revision)
            for name in works.keys() & model.products.keys()
            for each in model.products[name].images
        ]
        missing = [key for key in written if rows.get(key) != "settled"] if collection == ONE else []
        found = [item for work in works.values() for item in work.missing.get(collection, ())]
        assert sorted((item.image_id, item.revision) for item in found) == sorted(missing)
        rows |= dict.fromkeys(missing, "open")
    model.seen += [item for name in works for item in catalog.ledger.items(name)]


def _check_product(
    operation: PutProduct | PatchProduct, previous: Product | None, product: Product, model: Model
) -> None:
    same = previous is not None and previous.attributes == product.attributes
    if isinstance(operation, PatchProduct):
        assert previous is not None
        change = operation.changes.get("attributes", {})
        merged = {} if change is None else {**previous.attributes, **change}
        assert product.attributes == {key: each for key, each in merged.items() if each is not None}
    if isinstance(operation, PatchProduct) or operation.images is None:
        before = previous.images if previous else ()
        assert [each.image_id for each in product.images] == [each.image_id for each in before]
    else:
        assert len(product.images) == len({each.data for each in operation.images})
    places = (
        {(each.image_id, each.position): each.revision for each in previous.images}
        if previous and same
        else {}
    )
    for each in product.images:
        kept = places.get((each.image_id, each.position))
        assert each.revision == kept or (kept is None and each.revision > model.highest.get(each.image_id, 0))


def _write(verb: str, catalog: Catalog, model: Model, collection: str, items: Sequence[IndexItem]) -> None:
    rows = model.ledger[collection]
    keys = [(each.image_id, each.revision) for each in items]
    if verb == "open":
        catalog.ledger.open(collection, items)
        rows |= dict.fromkeys(keys, "open")
    elif verb == "settle":
        vanished = catalog.ledger.settle({collection: items})[collection]
        settled = [key for key in keys if key in rows and model.current.get(key[0]) == key[1]]
        assert [(each.image_id, each.revision) for each in vanished] == [k for k in keys if k not in settled]
        rows |= dict.fromkeys(settled, "settled")
    else:
        catalog.ledger.fail(collection, [(each, NotFound("no file")) for each in items])
        current = model.current.items()
        rows |= {key: "failed" if key in current else "open" for key in keys if rows.get(key) != "settled"}


def _complete(verb: str, catalog: Catalog, model: Model, collection: str) -> None:
    rows = model.ledger[collection]
    if verb == "remove":
        obsolete = catalog.ledger.obsolete(collection, 100)
        removal = catalog.ledger.begin_removal(collection, obsolete, 0)
        assert removal.keys == sorted(obsolete)
        catalog.ledger.end_removal({collection: removal})
        model.ledger[collection] = {
            key: state for key, state in rows.items() if f"{key[0]}:{key[1]}" not in obsolete
        }
    elif verb == "retry":
        failed = [key for key, state in rows.items() if state == "failed"]
        assert catalog.ledger.retry(collection) == len(failed)
        rows |= dict.fromkeys(failed, "open")
    else:
        catalog.ledger.reset(collection)
        rows |= dict.fromkeys(rows, "open")
