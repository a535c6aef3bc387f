"""Imports in SQL: position of each source, the products it delivered, and the images it named."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import delete, exists, func, select, update

from catalog.database import SqlPart, batched_rows, reading, upsert, writing
from catalog.ledger_queries import storable
from catalog.product_rows import is_product_id
from catalog.tables import ImportedImageRow, ImportedProductRow, ImportErrorRow, ImportRow
from core.errors import NotFound


@dataclass(frozen=True, slots=True)
class ImportState:
    """Position of an import; `position=None` before its first row."""

    source: str
    generation: int
    position: str | None
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RowError:
    """An error in a row of a source."""

    row: int
    product_id: str | None
    error: str


class SqlImports(SqlPart):
    """The register of imports."""

    def begin(self, source: str, plan: str, job_id: str) -> ImportState:
        """Resume the last import from a source where it is unfinished and has this plan, or begin a new one."""
        with writing(self._engine) as connection:
            last = connection.execute(
                select(*ImportRow.__table__.columns).where(ImportRow.source == source)
            ).one_or_none()
            if last is not None and last.finished_at is None and last.plan == plan:
                connection.execute(update(ImportRow).where(ImportRow.source == source).values(job_id=job_id))
                return ImportState(source, last.generation, last.position, last.counts)
            generation = 1 if last is None else last.generation + 1
            connection.execute(delete(ImportErrorRow).where(ImportErrorRow.source == source))
            new: dict[str, object] = {"source": source, "plan": plan, "generation": generation}
            new |= {"position": None, "counts": {}, "job_id": job_id}
            new |= {"started_at": self._clock(), "finished_at": None}
            upsert(connection, ImportRow, [new], new)
        return ImportState(source, generation, None, {})

    def save(self, state: ImportState, products: Mapping[str, int], errors: Sequence[RowError]) -> None:
        """Record the import's position durably, with the rows of products and the errors up to there."""
        delivered = [
            {"source": state.source, "product_id": each, "generation": state.generation, "row_number": row}
            for each, row in sorted(products.items())
            if is_product_id(each)
        ]
        with writing(self._engine) as connection:
            upsert(connection, ImportedProductRow, delivered, ("generation", "row_number"))
            wrong = [
                {
                    "source": state.source,
                    "row_number": each.row,
                    "product_id": None if each.product_id is None else storable(each.product_id),
                    "error": storable(each.error),
                }
                for each in errors
            ]
            upsert(connection, ImportErrorRow, wrong, ("product_id", "error"))
            connection.execute(
                update(ImportRow)
                .where(ImportRow.source == state.source)
                .values(position=state.position, counts=dict(state.counts))
            )

    def finish(self, source: str, counts: Mapping[str, int]) -> None:
        """Record the end of the import; the next one begins from the start."""
        values = {"finished_at": self._clock(), "counts": dict(counts)}
        with writing(self._engine) as connection:
            connection.execute(update(ImportRow).where(ImportRow.source == source).values(**values))

    def rows_of(self, state: ImportState, product_ids: Sequence[str]) -> dict[str, int]:
        """Return those of these products that this import has put, each with the row that counts."""
        # A row with an error put nothing.
        failed = exists().where(
            ImportErrorRow.source == ImportedProductRow.source,
            ImportErrorRow.row_number == ImportedProductRow.row_number,
        )
        put = select(ImportedProductRow.product_id, ImportedProductRow.row_number).where(
            ImportedProductRow.source == state.source,
            ImportedProductRow.generation == state.generation,
            ~failed,
        )
        batches = batched_rows([each for each in product_ids if is_product_id(each)])
        rows = self._read(*(put.where(ImportedProductRow.product_id.in_(some)) for some in batches))
        return {row.product_id: row.row_number for row in rows}

    def vanished(self, state: ImportState) -> tuple[list[str], int]:
        """List the products that the source delivered before and not in this import, and count all it delivered."""
        of_source = ImportedProductRow.source == state.source
        gone = (
            select(ImportedProductRow.product_id)
            .where(of_source, ImportedProductRow.generation < state.generation)
            .order_by(ImportedProductRow.product_id)
        )
        with reading(self._engine) as connection:
            known = connection.scalars(
                select(func.count()).select_from(ImportedProductRow).where(of_source)
            ).one()
            return list(connection.scalars(gone)), known

    def forget(self, source: str, product_ids: Sequence[str]) -> None:
        """Forget that the source delivered these products."""
        with writing(self._engine) as connection:
            for some in batched_rows(product_ids):
                connection.execute(
                    delete(ImportedProductRow).where(
                        ImportedProductRow.source == source, ImportedProductRow.product_id.in_(some)
                    )
                )

    def errors(self, job_id: str, limit: int, after: int = 0) -> list[RowError]:
        """Read the errors of rows behind row `after`, in the last import of this job.

        Raises:
            NotFound: the job was no import, or another one has imported from its source since.
        """
        with reading(self._engine) as connection:
            source = connection.scalar(select(ImportRow.source).where(ImportRow.job_id == job_id))
            if source is None:
                raise NotFound(f"job {job_id!r:.80} is not the last import of any source")
            rows = (
                select(ImportErrorRow.row_number, ImportErrorRow.product_id, ImportErrorRow.error)
                .where(ImportErrorRow.source == source, ImportErrorRow.row_number > after)
                .order_by(ImportErrorRow.row_number)
                .limit(limit)
            )
            return [RowError(*row) for row in connection.execute(rows)]


def stable_hash(value: object) -> str:
    """Hash a JSON value: lower-case hex sha256 of its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image file that was read and is sound; for a path, the etag is size and time."""

    etag: str | None
    last_modified: str | None
    sha256: str
    media_type: str
    width: int
    height: int


class SqlImportedImages(SqlPart):
    """Image files by the path or URL that named them."""

    def find(self, references: Sequence[str]) -> dict[str, KnownImage]:
        """Read the known images of these paths and URLs."""
        keys = {_reference_key(each): each for each in references}
        known, batches = select(*ImportedImageRow.__table__.columns), batched_rows(sorted(keys))
        rows = self._read(*(known.where(ImportedImageRow.key.in_(some)) for some in batches))
        return {keys[row[0]]: KnownImage(*row[1:]) for row in rows}

    def remember(self, images: Mapping[str, KnownImage]) -> None:
        """Store the images of these paths and URLs."""
        rows = {_reference_key(reference): asdict(known) for reference, known in images.items()}
        values = [{"key": key, **rows[key]} for key in sorted(rows)]
        with writing(self._engine) as connection:
            upsert(connection, ImportedImageRow, values, [field.name for field in fields(KnownImage)])

    def forget(self, sha256s: Sequence[str]) -> None:
        """Forget these files, so that the next import reads them again; for lost or damaged files."""
        with writing(self._engine) as connection:
            for some in batched_rows(sorted(set(sha256s))):
                connection.execute(delete(ImportedImageRow).where(ImportedImageRow.sha256.in_(some)))


def _reference_key(reference: str) -> str:
    # A path may hold bytes that are not UTF-8, which Python represents as surrogates.
    return hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()
