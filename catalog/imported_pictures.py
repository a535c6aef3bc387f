"""What paths and URLs held when an import read them last, so that nothing unchanged is read again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Engine, Table, delete, select

from catalog.chunks import chunks
from catalog.dialects import insert_or_replace
from catalog.tables import ImportedPictureRow
from catalog.transactions import reading, writing

_TABLE: Table = ImportedPictureRow.metadata.tables[ImportedPictureRow.__tablename__]


@dataclass(frozen=True, slots=True)
class KnownPicture:
    """A picture file that was read and found good, by its sha256; for a path the etag is size and time."""

    etag: str | None
    last_modified: str | None
    sha256: str
    media_type: str
    width: int
    height: int


class SqlImportedPictures:
    """The memory of references; every method may raise Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, references: Sequence[str]) -> dict[str, KnownPicture]:
        """Read what is known of these paths and URLs."""
        keys = {_key(each): each for each in references}
        found: dict[str, KnownPicture] = {}
        with reading(self._engine) as connection:
            for some in chunks(sorted(keys)):
                rows = select(*_TABLE.columns).where(ImportedPictureRow.key.in_(some))
                for row in connection.execute(rows):
                    key, *rest = row
                    found[keys[key]] = KnownPicture(*rest)
        return found

    def remember(self, pictures: Mapping[str, KnownPicture]) -> None:
        """Keep what these paths and URLs hold now."""
        if not pictures:
            return
        values = [{"key": _key(reference), **asdict(known)} for reference, known in pictures.items()]
        with writing(self._engine) as connection:
            statement = insert_or_replace(connection, _TABLE)
            changes = {column.name: statement.excluded[column.name] for column in _TABLE.columns}
            connection.execute(
                statement.on_conflict_do_update(index_elements=["key"], set_=changes),
                sorted(values, key=lambda each: str(each["key"])),
            )

    def forget(self, sha256s: Sequence[str]) -> None:
        """Have what held these files read anew by the next import; for files that were lost or damaged."""
        with writing(self._engine) as connection:
            for some in chunks(sorted(set(sha256s))):
                connection.execute(delete(ImportedPictureRow).where(ImportedPictureRow.sha256.in_(some)))


def _key(reference: str) -> str:
    # A path may hold bytes that are no UTF-8, which Python shows as surrogates.
    return hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()
