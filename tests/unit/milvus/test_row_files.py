"""Files of rows hold what an upsert would send, in the layout that Milvus imports."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import InvalidInput
from core.filters import Kind
from core.types import IndexItem, VectorRow
from milvus.bulk_import import RowFile, read_rows
from milvus.schema import encode_rows


def rows(count: int, dimension: int = 8) -> list[VectorRow]:
    vectors = np.random.default_rng(1).normal(size=(count, dimension)).astype(np.float32)
    attributes = {"color": 'ré"d\\\n', "price": 1.5, "sizes": ["S", "漢"], "ok": True, "none": None}
    return [
        VectorRow(IndexItem(f"{number:032x}", 7, f"p/{number}", "", {**attributes, "n": number}), vector)
        for number, vector in enumerate(vectors)
    ]


def written(folder: Path, some: list[VectorRow], batch: int = 300) -> Path:
    file = RowFile(folder / "rows.parquet", 8)
    for start in range(0, len(some), batch):
        file.append(some[start : start + batch])
    file.close()
    assert file.rows == len(some)
    return file.path


def test_a_file_has_a_column_for_each_field_of_the_types_that_milvus_reads(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path, rows(3)))
    assert {field.name: str(field.type) for field in table.schema} == {
        "key": "string",
        "image_id": "string",
        "revision": "int64",
        "product_id": "string",
        "attributes": "string",
        "embedding": "list<element: float>",
    }


def test_a_file_holds_what_an_upsert_sends(tmp_path: Path) -> None:
    some = rows(2500)
    table = pq.read_table(written(tmp_path, some)).to_pylist()
    sent = encode_rows(some, 8)
    for name in ("key", "image_id", "revision", "product_id", "attributes"):
        assert [row[name] for row in table] == [row[name] for row in sent]
    assert np.array_equal([row["embedding"] for row in table], [row["embedding"] for row in sent])


def test_a_file_is_read_back_a_row_group_at_a_time(tmp_path: Path) -> None:
    some = rows(2500)
    with written(tmp_path, some).open("rb") as file:
        groups = list(read_rows(file))
    assert [len(group) for group in groups] == [1000, 1000, 500]
    read = [row for group in groups for row in group]
    for row, sent in zip(read, encode_rows(some, 8), strict=True):
        assert np.array_equal(row.pop("embedding"), sent.pop("embedding"))
        assert row == sent


def test_a_file_has_columns_for_declared_attributes(tmp_path: Path) -> None:
    declared: dict[str, Kind] = {"color": "string", "price": "number", "ok": "bool", "other": "number"}
    file = RowFile(tmp_path / "rows.parquet", 8, declared)
    some = rows(3)
    file.append(some)
    file.close()
    types = {field.name: str(field.type) for field in pq.read_table(file.path).schema}
    assert types["attribute_color"] == "string"
    assert types["attribute_price"] == types["attribute_other"] == "double"
    assert types["attribute_ok"] == "int8"
    with file.path.open("rb") as opened:
        (read,) = read_rows(opened)
    for row, sent in zip(read, encode_rows(some, 8, declared), strict=True):
        assert np.array_equal(row.pop("embedding"), sent.pop("embedding"))
        assert row == sent


def test_what_an_upsert_refuses_is_refused_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    good, bad = rows(2)
    file = RowFile(tmp_path / "rows.parquet", 8)
    with pytest.raises(InvalidInput, match="not finite"):
        file.append([good, VectorRow(bad.item, np.full(8, np.nan, dtype=np.float32))])
    file.append([good])
    file.close()
    assert pq.read_table(file.path)["key"].to_pylist() == [good.item.key]


def test_a_file_that_was_cut_short_or_is_another_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path, rows(10)).read_bytes()
    other = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), other)
    for content in (whole[:-20], b"", other.getvalue()):
        with pytest.raises(InvalidInput, match="a file to import"):
            list(read_rows(io.BytesIO(content)))
