"""From a table of labels to judged queries."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from fsspec.core import url_to_fs

from core.errors import InvalidInput, Unavailable
from jobs.evaluation.label_table import Row, read_table
from jobs.evaluation.queries import JudgedQuery

_KINDS = {(True, False): "words", (False, True): "pictures", (True, True): "words and pictures"}


def read_labels(url: str) -> list[JudgedQuery]:
    """Read labelled queries from a file, by path or as fsspec names it, with the pictures beside it.

    Raises:
        InvalidInput: a file is missing or wrong, a query contradicts itself, asks for nothing or has no answer.
        Unavailable: the file system does not answer.
    """
    try:
        files, path = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InvalidInput(f"{url!r:.200} cannot be opened: {error}").at("queries") from None
    try:
        with files.open(path, "rb") as file:
            rows = read_table(PurePosixPath(path).name, file)
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInput(f"there is no file {url!r:.200} of labelled queries").at("queries") from None
    except OSError as error:
        raise Unavailable(f"{url!r:.200} cannot be read: {type(error).__name__}") from error
    by_query: dict[str, list[Row]] = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append(row)
    folder = str(PurePosixPath(path).parent)
    return [_query(query_id, of_query, files, folder) for query_id, of_query in by_query.items()]


def _query(query_id: str, rows: Sequence[Row], files: Any, folder: str) -> JudgedQuery:
    words, image = (_agreed(query_id, rows, column) for column in ("text", "image"))
    if words is None and image is None:
        raise InvalidInput(f"query {query_id!r:.100} has neither text nor image").at("queries")
    grades: dict[str, int] = {}
    for row in rows:
        if grades.setdefault(row["product_id"], row["grade"]) != row["grade"]:
            raise InvalidInput(
                f"query {query_id!r:.100} grades product {row['product_id']!r:.100} twice, and differently"
            ).at("queries")
    relevant = {product_id: grade for product_id, grade in grades.items() if grade > 0}
    if not relevant:
        raise InvalidInput(f"no product answers query {query_id!r:.100}: all its grades are 0").at("queries")
    picture = None if image is None else _picture(query_id, image, files, folder)
    return JudgedQuery(query_id, _KINDS[words is not None, image is not None], words, picture, relevant)


def _agreed(query_id: str, rows: Sequence[Row], column: str) -> str | None:
    found = {row[column] for row in rows} - {None}
    if len(found) > 1:
        raise InvalidInput(f"the rows of query {query_id!r:.100} differ in {column}").at("queries")
    return next(iter(found), None)


def _picture(query_id: str, image: str, files: Any, folder: str) -> bytes:
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts or "://" in image:
        raise InvalidInput(
            f"query {query_id!r:.100} names image {image!r:.200}; images are paths below the table's folder"
        ).at("queries")
    try:
        data: bytes = files.cat_file(f"{folder}/{path}")
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInput(f"query {query_id!r:.100}: there is no image {image!r:.200}").at(
            "queries"
        ) from None
    except OSError as error:
        raise Unavailable(f"image {image!r:.200} cannot be read: {type(error).__name__}") from error
    return data
