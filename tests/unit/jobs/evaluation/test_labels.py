"""Labeled queries from tables of all formats alike, and what is refused in them."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.errors import InvalidInput
from jobs.evaluation.queries import read_labels

HEADER = "query_id,text,image,product_id,grade\n"


def csv_file(folder: Path, rows: str, header: str = HEADER) -> str:
    (folder / "labels.csv").write_text(header + rows)
    return str(folder / "labels.csv")


ROWS = [
    {"query_id": "007", "text": 'red, "dress"\nor so', "product_id": "0012", "grade": 3},
    {"query_id": "007", "text": None, "product_id": "ü 1", "grade": None},
    {"query_id": "007", "text": None, "product_id": "bad", "grade": 0},
]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_one_table_reads_alike_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"labels.{ending}"
    if ending == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        path.write_text(
            'query_id,text,product_id,grade\n007,"red, ""dress""\nor so",0012,3\n007,,ü 1,\n007,,bad,0\n'
        )
    (query,) = read_labels(str(path))
    assert (query.query_id, query.kind, query.text) == ("007", "texts", 'red, "dress"\nor so')
    assert query.grades == {"0012": 3, "ü 1": 1}
    assert query.image is None


def test_ids_that_are_numbers_in_the_file_are_read_as_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    # pandas writes whole numbers as floats where one is missing.
    columns = {
        "query_id": [0, 0],
        "text": ["red", None],
        "product_id": [42.0, 43.0],
        "grade": [2.0, float("nan")],
    }
    parquet.write_table(pa.table(columns), path)
    (query,) = read_labels(str(path))
    assert (query.query_id, query.grades) == ("0", {"42": 2, "43": 1})


def test_text_and_image_make_one_query_wherever_its_rows_say_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"image")
    (query,) = read_labels(csv_file(tmp_path, "q,,in/a.jpg,p1,\nq,but green,,p2,2\n"))
    assert query.kind == "texts and images"
    assert query.inputs == ("but green", b"image")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("q,,,p,1\n", "query 'q' has neither text nor image"),
        ("q,a,,p,0\n", "no product answers query 'q'"),
        ("q,a,,p,1\nq,b,,r,1\n", "rows of query 'q' differ in text"),
        ("q,a,,p,1\nq,a,,p,2\n", "grades product 'p' twice, and differently"),
        ("q,a,,,1\n", "row 1 has no product_id"),
        (",a,,p,1\n", "row 1 has no query_id"),
        ("q,a,,p,-1\n", "row 1 has grade -1; grades are whole numbers, 0 to 1000"),
        ("q,a,,p,1\nq,a\n", "labels.csv: row 2: the row has 2 cells; the header has 5"),
        ("q,a,,p,many\n", "row 1 has grade many"),
        ("q,,missing.jpg,p,1\n", "there is no image 'missing.jpg'"),
        ("q,,../secret.jpg,p,1\n", "images are paths below the table's folder"),
        ("q,,/etc/passwd,p,1\n", "images are paths below the table's folder"),
        ("q,,http://a/b.jpg,p,1\n", "images are paths below the table's folder"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_labels(csv_file(tmp_path, rows))


def test_two_ids_in_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    url = csv_file(tmp_path, "q,red,p1,p2\n", "query_id,text,product_id,product_id\n")
    with pytest.raises(InvalidInput, match="row 1 has several values of product_id"):
        read_labels(url)


def test_a_missing_column_and_an_unknown_ending_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no column 'product_id'; columns: "):
        read_labels(csv_file(tmp_path, "q,a\n", "query_id,text\n"))
    (tmp_path / "labels.ods").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"a table is one of .*.csv, .*, not 'labels.ods'"):
        read_labels(str(tmp_path / "labels.ods"))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe garbage"])
def test_damaged_files_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"labels.{ending}"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"labels.{ending}"):
        read_labels(str(path))


@pytest.mark.parametrize("url", ["no/such/labels.csv", "nowhere://x/labels.csv"])
def test_a_file_that_is_not_there_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"labels.csv"):
        read_labels(url)
