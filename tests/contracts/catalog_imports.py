"""What the register of imports and the memory of pictures must do on every database."""

from dataclasses import replace

import pytest

from catalog.imported_pictures import KnownPicture
from catalog.imports import RowError
from catalog.opening import Catalog
from core.errors import NotFound

KNOWN = KnownPicture('"1"', None, "a" * 64, "image/png", 8, 9)


class ImportsContract:
    """Run by a class that defines the fixture `database_url`."""

    def test_a_position_counts_only_for_the_same_reading_of_the_same_source(self, catalog: Catalog) -> None:
        imports = catalog.imports
        begun = imports.begin("shop", "plan", "job-1")
        imports.save(replace(begun, position="5", counts={"rows": 5}), {"p": 5}, [])
        resumed = imports.begin("shop", "plan", "job-2")
        assert resumed == replace(begun, position="5", counts={"rows": 5})
        assert imports.rows_of(resumed, ["p", "q"]) == {"p": 5}
        anew = imports.begin("shop", "another plan", "job-3")
        assert (anew.position, anew.generation) == (None, begun.generation + 1)
        assert imports.rows_of(anew, ["p"]) == {}
        imports.finish("shop", {})
        assert imports.begin("shop", "another plan", "job-4").position is None

    def test_a_row_that_was_broken_counts_for_no_product(self, catalog: Catalog) -> None:
        imports = catalog.imports
        state = imports.begin("shop", "plan", "job-1")
        other = imports.begin("other", "plan", "job-2")
        imports.save(other, {"x": 7}, [RowError(2, "y", "broken")])
        imports.save(state, {"good": 1, "bad": 2, "later": 4}, [RowError(2, "bad", "broken")])
        imports.save(state, {}, [RowError(3, "later", "replaced")])
        assert imports.rows_of(state, ["good", "bad", "later"]) == {"good": 1, "later": 4}
        imports.save(state, {"bad": 5}, [])
        assert imports.rows_of(state, ["bad"]) == {"bad": 5}

    def test_what_vanished_is_what_an_earlier_import_had(self, catalog: Catalog) -> None:
        imports = catalog.imports
        first = imports.begin("shop", "plan", "job-1")
        other = imports.begin("other", "plan", "job-2")
        imports.save(first, {"a": 1, "b": 2, "c": 3}, [])
        imports.save(other, {"x": 1}, [])
        imports.finish("shop", {})
        second = imports.begin("shop", "plan", "job-3")
        imports.save(second, {"b": 1}, [])
        assert imports.vanished(second) == (["a", "c"], 3)
        imports.forget("shop", ["a"])
        assert imports.vanished(second) == (["c"], 2)

    def test_ids_and_errors_that_no_database_holds_are_borne(self, catalog: Catalog) -> None:
        imports = catalog.imports
        state = imports.begin("shop", "plan", "job-1")
        odd = ["a/b", "nul\0", "half\ud800", "x" * 500, ""]
        imports.save(
            state, {each: row for row, each in enumerate([*odd, "p"])}, [RowError(1, "half\ud800", "\0")]
        )
        assert imports.rows_of(state, [*odd, "p"]) == {"p": 5}
        assert [each.row for each in imports.errors("job-1", 10)] == [1]
        with pytest.raises(NotFound):
            imports.errors("job-2", 10)

    def test_the_errors_of_an_import_end_with_the_next_one(self, catalog: Catalog) -> None:
        imports = catalog.imports
        state = imports.begin("shop", "plan", "job-1")
        imports.save(state, {}, [RowError(1, "p", "first"), RowError(2, None, "second")])
        imports.save(state, {}, [RowError(2, "q", "again")])
        assert imports.errors("job-1", 10) == [RowError(1, "p", "first"), RowError(2, "q", "again")]
        imports.finish("shop", {})
        imports.begin("shop", "plan", "job-2")
        assert imports.errors("job-2", 10) == []

    def test_pictures_are_known_by_paths_and_urls_of_any_kind(self, catalog: Catalog) -> None:
        references = ["/shop/a.png", "https://shop.test/" + "x" * 4000, "/shop/\udcff.png", "https://\ud800"]
        catalog.imported_pictures.remember(dict.fromkeys(references, KNOWN))
        changed = replace(KNOWN, etag=None, last_modified="today")
        catalog.imported_pictures.remember({references[0]: changed})
        catalog.imported_pictures.remember({})
        found = catalog.imported_pictures.find([*references, "unknown"])
        assert found == {**dict.fromkeys(references, KNOWN), references[0]: changed}
        catalog.imported_pictures.remember({references[1]: replace(KNOWN, sha256="b" * 64)})
        catalog.imported_pictures.forget([KNOWN.sha256, "c" * 64])
        assert list(catalog.imported_pictures.find(references)) == [references[1]]
