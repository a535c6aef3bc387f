"""What every database of the catalog must do with image files that no product names."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from catalog.blobs import FsspecBlobs
from catalog.database import CatalogConfig, reading, writing
from catalog.image_files import PREFIXES, Collected, SqlImageFiles, lock_files
from catalog.imports import KnownImage
from catalog.opening import Catalog, open_catalog
from catalog.products import SqlProducts
from catalog.tables import FileHoldRow, ImageRow, UnnamedFileRow
from core.errors import Conflict, Unavailable
from core.types import NewImage
from tests.support.catalog_fixtures import BLUE, GREEN, RED, Clock

GRACE_S = 3600.0


def sha256(image: NewImage) -> str:
    return hashlib.sha256(image.data).hexdigest()


class Gate(FsspecBlobs):
    """Stops at a call of the store, before or after it is done, until it is let go."""

    def __init__(self, url: str, call: str, after: bool = False) -> None:
        super().__init__(url)
        self.reached, self.let_go = threading.Event(), threading.Event()
        self._call, self._after, self._armed = call, after, True

    def put(self, data: bytes) -> str:
        return self._at("put", super().put, data)

    def size(self, sha256: str) -> int | None:
        return self._at("size", super().size, sha256)

    def remove(self, sha256: str) -> None:
        self._at("remove", super().remove, sha256)

    def sizes(self, prefix: str) -> dict[str, int]:
        return self._at("sizes", super().sizes, prefix)

    def _at(self, call: str, work: Callable[[Any], Any], argument: Any) -> Any:
        armed = self._armed and call == self._call
        if armed and not self._after:
            self._stop()
        done = work(argument)
        if armed and self._after:
            self._stop()
        return done

    def _stop(self) -> None:
        self._armed = False
        self.reached.set()
        assert self.let_go.wait(30)


class ImageFilesContract:
    """Run on what the fixture `database_url` names."""

    @pytest.fixture(autouse=True)
    def _opened(
        self, catalog: Catalog, catalog_config: CatalogConfig, products: SqlProducts, clock: Clock
    ) -> None:
        self.catalog, self.catalog_config, self.products, self.clock = (
            catalog,
            catalog_config,
            products,
            clock,
        )
        self.files = SqlImageFiles(catalog.engine, catalog.blobs, clock)

    def drop(self, *images: NewImage) -> None:
        """Put a product with these images, and delete it."""
        self.products.put("p", "", "", {}, images)
        self.products.delete("p")

    def stored(self) -> set[str]:
        return {name for prefix in PREFIXES for name in self.catalog.blobs.sizes(prefix)}

    def marked(self) -> set[str]:
        with reading(self.catalog.engine) as connection:
            return set(connection.scalars(select(UnnamedFileRow.sha256)))

    def consistent(self) -> None:
        """Every image has its file, and every file an image or a mark."""
        with reading(self.catalog.engine) as connection:
            named = set(connection.scalars(select(ImageRow.sha256)))
        assert named <= self.stored() <= named | self.marked()

    def test_the_file_of_a_deleted_product_goes_after_the_grace(self) -> None:
        self.products.put("p", "", "", {}, [RED, BLUE])
        self.products.put("q", "", "", {}, [GREEN])
        self.products.delete("p")
        assert self.files.waiting() == 2
        self.clock.move(GRACE_S - 1)
        assert self.files.collect(GRACE_S, 10) == Collected()
        assert self.catalog.blobs.get(sha256(RED)) == RED.data
        self.clock.move(1)
        assert self.files.collect(GRACE_S, 10) == Collected(removed=2)
        assert self.stored() == {sha256(GREEN)}
        assert self.files.waiting() == 0
        assert self.files.collect(0, 10) == Collected()

    def test_the_file_of_a_replaced_image_goes_and_those_that_stay_do_not(self) -> None:
        self.products.put("p", "", "", {}, [RED, BLUE])
        self.products.put("p", "new", "", {"a": 1}, [BLUE, GREEN])
        self.products.put("p", "newer", "", {}, None)
        assert self.files.collect(0, 10) == Collected(removed=1)
        assert self.stored() == {sha256(BLUE), sha256(GREEN)}
        self.products.put("p", "newest", "", {}, [])
        assert self.files.collect(0, 1) == Collected(removed=1)
        assert self.files.collect(0, 1) == Collected(removed=1)
        assert self.stored() == set()

    def test_content_that_another_product_has_stays(self) -> None:
        self.products.put("p", "", "", {}, [RED])
        self.products.put("q", "", "", {}, [RED])
        self.products.delete("p")
        assert self.files.collect(0, 10) == Collected(named=1)
        assert self.marked() == set()
        assert self.catalog.blobs.get(sha256(RED)) == RED.data
        self.products.delete("q")
        assert self.files.collect(0, 10) == Collected(removed=1)

    def test_content_that_is_put_again_within_the_grace_stays(self) -> None:
        self.drop(RED)
        self.products.put("p", "", "", {}, [RED])
        self.clock.move(GRACE_S)
        assert self.files.collect(GRACE_S, 10) == Collected(named=1)
        self.consistent()
        self.products.delete("p")
        assert self.files.collect(GRACE_S, 10) == Collected()

    def test_a_file_that_a_put_stored_and_never_named_is_found_by_a_listing(self) -> None:
        self.products.put("p", "", "", {}, [RED])
        orphan = self.catalog.blobs.put(b"its process died")
        assert self.files.collect(0, 10) == Collected()
        for prefix in PREFIXES * 2:
            self.files.mark_unnamed(prefix)
        assert self.marked() == {orphan}
        self.clock.move(GRACE_S)
        assert self.files.collect(GRACE_S, 10) == Collected(removed=1)
        assert self.stored() == {sha256(RED)}

    def test_a_listing_does_not_renew_the_grace(self) -> None:
        self.drop(RED)
        self.clock.move(GRACE_S)
        self.files.mark_unnamed(sha256(RED)[:2])
        assert self.files.collect(GRACE_S, 10) == Collected(removed=1)

    def test_what_an_import_remembers_of_a_removed_file_goes_with_it(self) -> None:
        self.products.put("p", "", "", {}, [RED])
        known = [KnownImage("1", None, sha256(each), "image/png", 1, 1) for each in (RED, RED, BLUE)]
        self.catalog.imported_images.remember(dict(zip("abc", known, strict=True)))
        self.products.delete("p")
        self.files.collect(0, 10)
        assert list(self.catalog.imported_images.find(["a", "b", "c"])) == ["c"]

    @pytest.mark.parametrize(("call", "after"), [("remove", False), ("remove", True)])
    def test_a_put_beside_a_removal_waits_and_stores_its_file_anew(self, call: str, after: bool) -> None:
        self.drop(RED)
        gate = Gate(self.catalog_config.blobs_url, call, after)
        files = SqlImageFiles(self.catalog.engine, gate)
        with ThreadPoolExecutor(2) as pool:
            removal = pool.submit(files.collect, 0, 10)
            assert gate.reached.wait(120)
            # It has looked, and is about to delete the file or has just done so.
            put = pool.submit(self.products.put, "q", "", "", {}, [RED])
            self.stays_unfinished(put)
            gate.let_go.set()
            assert removal.result() == Collected(removed=1)
            put.result()
        assert self.catalog.blobs.get(sha256(RED)) == RED.data
        self.consistent()
        assert files.collect(0, 10) == Collected()

    def test_who_waits_for_a_file_holds_up_no_other_and_says_so_in_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if self.catalog.engine.dialect.name == "sqlite":
            pytest.skip("SQLite has one lock for all that write")
        self.products.put("q", "", "", {}, [RED])
        self.products.put("r", "", "", {}, [BLUE])
        # As a removal does that waits for a slow store.
        with ThreadPoolExecutor(2) as pool:
            with writing(self.catalog.engine) as connection:
                lock_files(connection, [sha256(RED)])
                waiting = pool.submit(self.products.delete, "q")
                self.stays_unfinished(waiting)
                pool.submit(self.products.delete, "r").result(30)
                with monkeypatch.context() as patch:
                    patch.setattr("catalog.database.BUSY_TIMEOUT_S", 0.1)
                    with pytest.raises(Unavailable, match="busy with other writes"):
                        self.products.put("p", "", "", {}, [RED])
            waiting.result(30)
        self.products.put("p", "", "", {}, [RED])

    def test_a_put_looks_for_no_file_that_an_image_names(self) -> None:
        looked: list[str] = []

        class Watched(FsspecBlobs):
            def size(self, sha256: str) -> int | None:
                looked.append(sha256)
                return super().size(sha256)

        self.products.put("p", "", "", {}, [RED])
        watched = SqlProducts(self.catalog.engine, Watched(self.catalog_config.blobs_url))
        watched.put("q", "", "", {}, [BLUE, RED, GREEN])
        assert sorted(looked) == sorted([sha256(BLUE), sha256(GREEN)])
        self.consistent()

    def test_a_put_whose_file_is_removed_before_its_transaction_stores_it_anew(self) -> None:
        self.drop(RED)
        gate = Gate(self.catalog_config.blobs_url, "put", after=True)
        with ThreadPoolExecutor(1) as pool:
            put = pool.submit(SqlProducts(self.catalog.engine, gate).put, "q", "", "", {}, [RED, BLUE])
            assert gate.reached.wait(120)
            # It has seen its first file, and relies on it.
            assert self.files.collect(0, 10) == Collected(removed=1)
            gate.let_go.set()
            put.result()
        assert self.catalog.blobs.get(sha256(RED)) == RED.data
        self.consistent()

    def test_a_removal_beside_a_put_that_has_looked_waits_and_finds_the_file_named(self) -> None:
        self.drop(RED)
        gate = Gate(self.catalog_config.blobs_url, "size", after=True)
        with ThreadPoolExecutor(2) as pool:
            put = pool.submit(SqlProducts(self.catalog.engine, gate).put, "q", "", "", {}, [RED])
            assert gate.reached.wait(120)
            # Its transaction has found the file, and has not written its rows.
            removal = pool.submit(self.files.collect, 0, 10)
            self.stays_unfinished(removal)
            gate.let_go.set()
            put.result()
            assert removal.result() == Collected(named=1)
        assert self.catalog.blobs.get(sha256(RED)) == RED.data
        self.consistent()

    def test_a_file_that_is_named_after_a_listing_is_not_removed(self) -> None:
        orphan = self.catalog.blobs.put(RED.data)
        gate = Gate(self.catalog_config.blobs_url, "sizes", after=True)
        files = SqlImageFiles(self.catalog.engine, gate)
        with ThreadPoolExecutor(1) as pool:
            listing = pool.submit(files.mark_unnamed, orphan[:2])
            assert gate.reached.wait(120)
            self.products.put("p", "", "", {}, [RED])
            gate.let_go.set()
            listing.result()
        files.collect(0, 10)
        assert files.remove(orphan) == "named"
        assert self.catalog.blobs.get(orphan) == RED.data
        self.consistent()

    def test_a_file_that_cannot_be_removed_keeps_no_other(self) -> None:
        class Stuck(FsspecBlobs):
            def remove(self, name: str) -> None:
                if name == sha256(RED):
                    raise Unavailable("it may not be deleted")
                super().remove(name)

        # It has the oldest mark, and one page is one file.
        for image in (RED, BLUE, GREEN):
            self.drop(image)
            self.clock.move(1)
        stuck = SqlImageFiles(self.catalog.engine, Stuck(self.catalog_config.blobs_url), self.clock)
        done = [stuck.collect(0, 1)]
        while done[-1].last is not None:
            done.append(stuck.collect(0, 1, done[-1].last))
        assert done == [Collected(failed=1), Collected(removed=1), Collected(removed=1), Collected()]
        assert self.stored() == self.marked() == {sha256(RED)}
        assert self.files.collect(0, 10) == Collected(removed=1)

    @pytest.mark.slow
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_removal_that_is_killed_is_done_again(self, moment: str) -> None:
        self.drop(RED, BLUE)
        program = str(Path(__file__).with_name("catalog_file_remover.py"))
        config = self.catalog_config
        killed = subprocess.run(
            [sys.executable, program, config.database_url, config.blobs_url, moment],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -9, killed.stderr.decode()
        assert len(self.stored()) == (2 if moment == "before" else 1)
        assert len(self.marked()) == 2
        # A put of the same content needs nobody to clear up first.
        self.products.put("q", "", "", {}, [RED, BLUE])
        self.consistent()
        self.products.delete("q")
        assert self.files.collect(0, 10) == Collected(removed=2)
        assert self.stored() == set()

    @pytest.mark.slow
    def test_many_writers_and_removers_of_one_content_lose_nothing(self) -> None:
        ended = threading.Event()

        def write(number: int) -> None:
            for turn in range(15):
                self.products.put(f"p{number}", str(turn), "", {}, [RED, BLUE] if turn % 2 else [BLUE, GREEN])
                stored = self.products.get(f"p{number}")
                assert all(self.catalog.blobs.size(each.sha256) for each in stored.images)
                self.products.delete(f"p{number}")
            self.products.put(f"p{number}", "", "", {}, [RED])

        def remove() -> int:
            removed = 0
            while not ended.is_set():
                removed += self.files.collect(0, 10).removed
                for image in (RED, BLUE, GREEN):
                    self.files.mark_unnamed(sha256(image)[:2])
            return removed

        with ThreadPoolExecutor(6) as pool:
            removers = [pool.submit(remove) for _ in range(2)]
            writers = [pool.submit(write, number) for number in range(3)]
            wait(writers)
            ended.set()
            for each in writers:
                each.result()
            assert sum(each.result() for each in removers) > 0
        self.consistent()
        self.files.collect(0, 10)
        assert self.stored() == {sha256(RED)}

    def test_a_hold_of_a_dead_process_runs_out(self) -> None:
        self.drop(RED)
        # Never left, as by a process that was killed; its heart beats once in an hour only.
        abandoned = self.files.holding(lease_s=6 * 3600)
        abandoned.__enter__()
        assert self.files.collect(0, 10).held
        self.clock.move(6 * 3600)
        assert self.files.collect(0, 10) == Collected(removed=1)
        abandoned.__exit__(None, None, None)

    def test_a_hold_is_renewed_while_it_lasts_and_made_anew_where_it_was_lost(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.drop(RED)
        with self.files.holding(lease_s=0.6):
            for _ in range(5):
                # The clock moves only as fast as the hold is renewed.
                before = self.expiry()
                self.clock.move(0.3)
                while self.expiry() == before:
                    threading.Event().wait(0.01)
                assert self.files.collect(0, 10) == Collected(held=True)
            assert "was lost" not in caplog.text
            with writing(self.catalog.engine) as connection:
                connection.execute(delete(FileHoldRow))
            while self.expiry() is None:
                threading.Event().wait(0.01)
            assert self.files.collect(0, 10).held
        assert "was lost for a while" in caplog.text
        assert self.files.collect(0, 10) == Collected(removed=1)

    def expiry(self) -> Any:
        with reading(self.catalog.engine) as connection:
            return connection.scalar(select(FileHoldRow.expires_at))

    def test_after_a_deletion_and_a_prune_no_byte_of_the_image_is_left(self) -> None:
        secret = NewImage(b"a face that wants to be forgotten", "image/png", 1, 1)
        self.products.put("p", "", "", {}, [secret])
        name = sha256(secret)
        half = Path(self.catalog_config.blobs_url, name[:2], name[2:4], f".{name}.0123.tmp")
        half.write_bytes(secret.data)
        os.utime(half, (0, 0))
        self.products.delete("p")
        for prefix in PREFIXES:
            self.files.mark_unnamed(prefix)
        self.files.collect(0, 10)
        folder = Path(self.catalog_config.blobs_url).parent
        left = [each for each in folder.rglob("*") if each.is_file() and secret.data in each.read_bytes()]
        assert left == []

    def test_a_database_removes_no_file_of_a_store_that_belongs_to_another(self, tmp_path: Path) -> None:
        self.products.put("p", "", "", {}, [RED])
        self.products.put("q", "", "", {}, [BLUE])
        self.products.delete("q")
        assert self.catalog.image_files.collect(0, 10) == Collected(removed=1)
        config = self.catalog_config.model_copy(update={"database_url": f"sqlite:///{tmp_path}/other.db"})
        with closing(open_catalog(config)) as other:
            # As by a wrong database_url: to it all files are unnamed.
            with pytest.raises(Conflict, match="belongs to another database"):
                other.image_files.mark_unnamed(sha256(RED)[:2])
            other.products.put("p", "", "", {}, [RED])
            other.products.delete("p")
            with pytest.raises(Conflict, match="belongs to another database"):
                other.image_files.collect(0, 10)
        assert self.stored() == {sha256(RED)}
        assert self.catalog.image_files.collect(0, 10) == Collected()

    @staticmethod
    def stays_unfinished(future: Future[Any]) -> None:
        """See that it waits for another: what a lock holds back does not end by itself."""
        done, _ = wait([future], timeout=0.5)
        assert not done
