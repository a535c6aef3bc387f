"""Manifests in CSV, JSON lines and Parquet, with what spreadsheets and exports do to them."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from catalog.sources.entries import Entry, Record
from catalog.sources.manifest import Manifest
from core.errors import InvalidInput
from core.sources import Fields, ManifestSource


def source(path: Path, fields: dict[str, Any] | None = None, **more: Any) -> Manifest:
    return Manifest(
        ManifestSource.model_validate({"kind": "manifest", "path": str(path), "fields": fields or {}, **more})
    )


def read(path: Path, fields: dict[str, Any] | None = None, **more: Any) -> list[Entry]:
    return list(source(path, fields, **more).entries(None))


def csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "shop.csv"
    path.write_bytes(text.encode(encoding))
    return path


def records(entries: list[Entry]) -> list[Record]:
    return [entry.content for entry in entries if isinstance(entry.content, Record)]


def errors(entries: list[Entry]) -> dict[int, str]:
    return {each.row: each.content.message for each in entries if isinstance(each.content, InvalidInput)}


def test_a_spreadsheets_csv_is_read(tmp_path: Path) -> None:
    text = (
        '\ufeffproduct_id;title;description;images\r\n007;"A ""red"" dress";"two\r\nlines";a.jpg| b.jpg |\r\n'
        "\r\n8;;;https://shop.test/x.jpg\r\n"
    )
    first, second = records(read(csv(tmp_path, text)))
    assert first == Record(
        "007", 'A "red" dress', "two\r\nlines", {}, (tmp_path / "a.jpg", tmp_path / "b.jpg")
    )
    assert second == Record("8", "", "", {}, ("https://shop.test/x.jpg",))


def test_a_column_that_is_missing_is_named_with_those_that_exist(tmp_path: Path) -> None:
    path = csv(tmp_path, "sku,name\n1,a\n")
    with pytest.raises(InvalidInput, match="no column 'product_id'; columns: 'name', 'sku'"):
        read(path)
    with pytest.raises(InvalidInput, match="no column 'image'") as caught:
        read(path, {"product_id": "sku", "images": ["image"]})
    assert caught.value.param == "source.fields.images"


def test_columns_go_where_the_fields_say_and_the_rest_becomes_attributes(tmp_path: Path) -> None:
    text = "sku,name,front,back,price,size,code,new,weight\n"
    text += "1,Dress,f.jpg,b.jpg,10,38,007,true,1.5\n2,Hat,,b2.jpg,12,M,008,False,\n"
    fields = {"product_id": "sku", "title": "name", "images": ["front", "back"], "rest_as_attributes": True}
    dress, hat = records(read(csv(tmp_path, text), fields))
    assert dress.title == "Dress"
    assert dress.images == (tmp_path / "f.jpg", tmp_path / "b.jpg")
    # `size` holds a letter once, and `code` leading zeros: both stay texts as a whole.
    assert dress.attributes == {"price": 10, "size": "38", "code": "007", "new": True, "weight": 1.5}
    assert hat.attributes == {"price": 12, "size": "M", "code": "008", "new": False}
    assert hat.images == (tmp_path / "b2.jpg",)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "2.5"], [1.0, 2.5]),
        (["1e3", "2"], [1000.0, 2.0]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["nan", "1"], ["nan", "1"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["+49123", "1"], ["+49123", "1"]),
        (["true", "1"], ["true", "1"]),
        (["1_000", "1"], ["1_000", "1"]),
        (["٣", "1"], ["٣", "1"]),
    ],
)
def test_types_are_those_of_whole_columns(tmp_path: Path, cells: list[str], values: list[Any]) -> None:
    text = "product_id,x\n" + "".join(f"p{number},{cell}\n" for number, cell in enumerate(cells))
    found = [
        each.attributes["x"] for each in records(read(csv(tmp_path, text), {"rest_as_attributes": True}))
    ]
    assert found == values
    assert [type(each) for each in found] == [type(each) for each in values]


def test_broken_rows_fail_alone_with_their_numbers(tmp_path: Path) -> None:
    text = 'product_id,title\n1,a\n2\n3,c,d\n,e\n5,"f"x\n6,g\n'
    entries = read(csv(tmp_path, text))
    assert [each.product_id for each in records(entries)] == ["1", "6"]
    assert set(errors(entries)) == {2, 3, 4, 5}
    assert "1 cells; the header has 2" in errors(entries)[2]
    assert "no product id" in errors(entries)[4]


def test_a_quote_that_never_closes_is_one_error(tmp_path: Path) -> None:
    entries = read(csv(tmp_path, 'product_id,title\n1,a\n2,"never\n3,c\n'))
    assert [each.product_id for each in records(entries)] == ["1"]
    assert "not CSV" in errors(entries)[2]


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../x.jpg", "link.jpg", "bad\0name"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (tmp_path / "target.jpg").write_bytes(b"x")
    (folder / "link.jpg").symlink_to(tmp_path / "target.jpg")
    entries = read(csv(folder, f"product_id,images\n1,{name}\n2,{folder}/inside.jpg\n"))
    assert 1 in errors(entries)
    assert [each.product_id for each in records(entries)] == ["2"]


def test_an_encoding_that_is_not_the_files_is_reported(tmp_path: Path) -> None:
    path = csv(tmp_path, "product_id,title\n1,Mütze\n", "cp1252")
    with pytest.raises(InvalidInput, match="utf-8"):
        read(path)
    assert records(read(path, encoding="cp1252"))[0].title == "Mütze"
    other = csv(tmp_path, "product_id,title\n1,Mütze\n", "utf-16")
    assert records(read(other, encoding="utf-16"))[0].title == "Mütze"


@pytest.mark.parametrize("text", ["", "\n", "a,a\n1,2\n"])
def test_a_header_that_names_no_columns_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="columns"):
        read(csv(tmp_path, text))


def test_a_table_without_an_image_column_keeps_images(tmp_path: Path) -> None:
    assert records(read(csv(tmp_path, "product_id,title\n1,a\n")))[0].images is None
    assert records(read(csv(tmp_path, "product_id,images\n1,\n")))[0].images == ()


def test_a_manifest_goes_on_behind_its_position(tmp_path: Path) -> None:
    rows = "".join(f"{number},t\n" for number in range(9))
    table = pyarrow.table({"product_id": list(range(9))})
    pyarrow.parquet.write_table(table, tmp_path / "shop.parquet", row_group_size=4)
    (tmp_path / "shop.jsonl").write_text("".join(f'{{"product_id": {n}}}\n' for n in range(9)))
    for path in (
        csv(tmp_path, "product_id,title\n" + rows),
        tmp_path / "shop.parquet",
        tmp_path / "shop.jsonl",
    ):
        opened = source(path)
        every = list(opened.entries(None))
        assert [each.product_id for each in every] == [str(number) for number in range(9)]
        assert opened.total() == 9
        for entry in every:
            assert list(opened.entries(entry.position)) == every[entry.row :]


def test_json_lines_take_the_shape_of_the_api(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    first = {
        "product_id": "a",
        "title": "A",
        "attributes": {"tags": ["x"], "gone": None},
        "images": ["a.jpg"],
    }
    lines = [json.dumps(first), "", "{", "[1]", '{"title": "nameless"}', '{"product_id": "b"}']
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    entries = read(path)
    assert records(entries) == [
        Record("a", "A", "", {"tags": ["x"]}, (tmp_path / "a.jpg",)),
        Record("b", "", "", {}, None),
    ]
    assert set(errors(entries)) == {2, 3, 4}


def test_nested_fields_are_named_with_dots(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    row = {
        "id": 7,
        "name": {"en": "Seven"},
        "media": [{"url": "https://shop.test/1"}, {"alt": "none"}],
        "k": 1,
    }
    path.write_text(json.dumps(row))
    fields = {"product_id": "id", "title": "name.en", "images": ["media.url"], "rest_as_attributes": True}
    assert records(read(path, fields)) == [Record("7", "Seven", "", {"k": 1}, ("https://shop.test/1",))]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "product_id": pyarrow.array([1.0, None], pyarrow.float64()),
            "images": [["a.jpg", None], None],
            "price": [Decimal("10.50"), Decimal("2.00")],
            "since": [date(2024, 1, 2), None],
            "rating": [float("nan"), 1.0],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "shop.parquet")
    entries = read(tmp_path / "shop.parquet", {"rest_as_attributes": True})
    (first,) = records(entries)
    assert first.product_id == "1"
    assert first.images == (tmp_path / "a.jpg",)
    assert first.attributes == {"price": 10.5, "since": "2024-01-02"}
    assert "no product id" in errors(entries)[2]


@pytest.mark.parametrize("name", ["shop.parquet", "shop.jsonl", "shop.xlsx", "nowhere.csv"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, name: str) -> None:
    if not name.startswith("nowhere"):
        (tmp_path / name).write_bytes(b"\x00\x01not a table")
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path / name)
    assert caught.value.param == "source.path"


def test_the_separator_and_delimiter_can_be_said(tmp_path: Path) -> None:
    path = csv(tmp_path, "product_id\timages\n1\ta,1.jpg;b.jpg\n")
    (found,) = records(read(path, Fields(images_separator=";").model_dump(), delimiter="tab"))
    assert found.images == (tmp_path / "a,1.jpg", tmp_path / "b.jpg")


def test_a_manifest_that_changed_has_another_version(tmp_path: Path) -> None:
    before = source(csv(tmp_path, "product_id\n1\n")).version
    assert source(tmp_path / "shop.csv").version == before
    assert source(csv(tmp_path, "product_id\n1\n2\n")).version != before
