"""Tables of every format as a source, with what spreadsheets, shops and databases do to them."""

import gzip
import json
import unicodedata
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from catalog.sources import table
from catalog.sources.entries import Entry, Record
from catalog.sources.manifest import Manifest
from core.errors import InvalidInput
from core.sources import ManifestSource

REST = {"rest_as_attributes": True}


def source(path: Path, fields: dict[str, Any] | None = None, **more: Any) -> Manifest:
    return Manifest(
        ManifestSource.model_validate({"kind": "manifest", "path": str(path), "fields": fields or {}} | more)
    )


def read(path: Path, fields: dict[str, Any] | None = None, **more: Any) -> list[Entry]:
    return list(source(path, fields, **more).entries(None))


def file(folder: Path, content: str | bytes, name: str = "shop.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def workbook(folder: Path, *rows: list[Any]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(folder / "shop.xlsx")
    return folder / "shop.xlsx"


def parquet_file(folder: Path, columns: dict[str, Any], **more: Any) -> Path:
    parquet.write_table(pa.table(columns), folder / "shop.parquet", **more)
    return folder / "shop.parquet"


def records(entries: list[Entry]) -> list[Record]:
    return [entry.content for entry in entries if isinstance(entry.content, Record)]


def errors(entries: list[Entry]) -> dict[int, str]:
    return {each.row: each.content.message for each in entries if isinstance(each.content, InvalidInput)}


def ids(entries: list[Entry]) -> list[str]:
    return [each.product_id for each in records(entries)]


def test_a_spreadsheets_csv_is_read(tmp_path: Path) -> None:
    text = (
        '\ufeffproduct_id;title;description;images\r\n 007;"A ""red"" dress";"two\r\nlines";a.jpg| b.jpg |\r\n'
        "\r\n;;;\r\n8 ;;;https://shop.test/x.jpg\r\n"
    )
    first, second = records(read(file(tmp_path, text)))
    images = (tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert first == Record("007", 'A "red" dress', "two\r\nlines", {}, images)
    assert second == Record("8", "", "", {}, ("https://shop.test/x.jpg",))


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("sep=;\r\nsku;name\r\nä;b, c\r\n".encode(), {}),
        ('"sep=\t"\nsku\tname\nä\tb, c\n'.encode(), {}),
        ('"sku","name, of it",,\r"ä","b, c",,\r'.encode(), {}),
        (" sku ,name,,\nä,'b,,\n,,,\n,,,\n".replace("'b", '"b, c"').encode(), {}),
        ("sku\tname\nä\tb, c\n".encode("utf-16"), {}),
        ("sku\tname\nä\tb, c\n".encode("utf-16-le"), {"encoding": "utf-16"}),
        ("sku;name\nä;b, c\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("sku;name\nä;b, c\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("sku|name\nä|b, c".encode(), {"delimiter": "|"}),
        ("sku;a,b,c,d\nä;b, c".encode(), {"delimiter": ";"}),
        ('sku,name,,\nä,"b, c"\n'.encode(), {}),
        ('Table 1\nsku,name\nä,"b, c"\n'.encode(), {}),
        ('Table 1,,\nsku,name,\nä,"b, c",\n'.encode(), {}),
    ],
)
def test_what_spreadsheets_write_is_one_product(tmp_path: Path, content: bytes, more: Any) -> None:
    (found,) = read(file(tmp_path, content), {**REST}, **more)
    assert isinstance(found.content, Record), found.content
    assert found.product_id == "ä"
    assert "b, c" in (found.content.title, *found.content.attributes.values())


def test_a_single_column_is_no_title(tmp_path: Path) -> None:
    assert ids(read(file(tmp_path, "sku\nid\n7\n"))) == ["id", "7"]
    assert ids(read(file(tmp_path, "code\nid\n7\n"), {"product_id": "code"})) == ["id", "7"]


def test_a_quote_may_be_escaped_where_that_is_said(tmp_path: Path) -> None:
    path = file(tmp_path, 'sku,name\n1,"a \\"b\\", c"\n2,"a ""b"", c"\n')
    assert [each.title for each in records(read(path, escape="\\"))] == ['a "b", c'] * 2
    assert set(errors(read(path))) == {1}


def test_columns_of_one_name_are_one_list(tmp_path: Path) -> None:
    text = "id,image,color,image,color,size,size\n1,a.jpg,red,b.jpg,blue,S,S\n2,,,b.jpg,,,\n"
    first, second = records(read(file(tmp_path, text), REST))
    assert (first.attributes, first.images) == (
        {"color": ["red", "blue"], "size": "S"}, (tmp_path / "a.jpg", tmp_path / "b.jpg")
    )  # fmt: skip
    assert (second.attributes, second.images) == ({}, (tmp_path / "b.jpg",))
    parquet.write_table(pa.table([["1"], ["a"], ["b"]], ["id", "x", "x"]), tmp_path / "s.parquet")
    with pytest.raises(InvalidInput, match="several columns 'x'"):
        read(tmp_path / "s.parquet")


def test_a_column_that_is_missing_is_named_with_those_that_exist(tmp_path: Path) -> None:
    path = file(tmp_path, "code,name\n1,a\n")
    with pytest.raises(InvalidInput, match="no column 'product_id'; columns: 'code', 'name'"):
        read(path)
    for fields, param in (({"images": ["image"]}, "images"), ({"types": {"x": "text"}}, "types")):
        with pytest.raises(InvalidInput, match="no column '") as caught:
            read(path, {"product_id": "code", **fields})
        assert caught.value.param == f"source.fields.{param}"


def test_columns_go_where_the_fields_say_and_the_rest_becomes_attributes(tmp_path: Path) -> None:
    text = "sku,name,front,back,price,size,code,new,weight\n"
    text += "1,Dress,f.jpg,b.jpg,10,38,007,true,1.5\n2,Hat,,b2.jpg,12,M,008,False,\n"
    fields = {"product_id": "sku", "title": "name", "images": ["front", "back"], **REST}
    opened = source(file(tmp_path, text), fields)
    dress, hat = records(list(opened.entries(None)))
    assert (dress.title, dress.images) == ("Dress", (tmp_path / "f.jpg", tmp_path / "b.jpg"))
    # `size` holds a letter once, and `code` leading zeros: both stay texts as a whole.
    assert dress.attributes == {"price": 10, "size": "38", "code": "007", "new": True, "weight": 1.5}
    assert hat.attributes == {"price": 12, "size": "M", "code": "008", "new": False}
    assert hat.images == (tmp_path / "b2.jpg",)
    types = {"price": "number", "size": "text", "code": "text", "new": "boolean", "weight": "number"}
    assert opened.report() == {
        "format": "csv", "product_id": "sku", "title": "name", "description": None, "images": ["front", "back"],
        "attributes": types, "columns_left_out": [], "rows": 2, "rows_are_grouped": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2"], [1, -2]),
        ([" 1 ", "2.5"], [1, 2.5]),
        (["true", "FALSE"], [True, False]),
        (["9007199254740992", "1"], [2**53, 1]),
        *(
            ([text, "1"], [text, "1"])
            for text in (
                "12E4", "1.10", "1e3", "00123", "9007199254740993", "9223372036854775808", "nan", "1e999",
                "+49123", "-0", "1_000", "٣", "TRUE",
            )
        ),
    ],
)  # fmt: skip
def test_numbers_are_those_of_columns_that_write_back_as_they_were_read(
    tmp_path: Path, cells: list[str], values: list[Any]
) -> None:
    text = "product_id,x\n" + "".join(f"p{number},{cell}\n" for number, cell in enumerate(cells))
    found = [each.attributes["x"] for each in records(read(file(tmp_path, text), REST))]
    assert found == values
    assert [type(each) for each in found] == [type(each) for each in values]


def test_types_of_columns_can_be_said(tmp_path: Path) -> None:
    path = file(tmp_path, "product_id,price,year,new\na,19.90,2024,yes\nb,free,2025,true\nc,5.0,2026,true\n")
    entries = read(path, {**REST, "types": {"price": "number", "year": "text", "new": "boolean"}})
    assert [each.attributes for each in records(entries)] == [{"price": 5.0, "year": "2026", "new": True}]
    assert errors(entries) == {1: "'new' is no boolean: 'yes'", 2: "'price' is no number: 'free'"}
    path = parquet_file(tmp_path, {"product_id": ["a"], "code": [2**60 + 1]})
    assert records(read(path, {**REST, "types": {"code": "text"}}))[0].attributes == {"code": str(2**60 + 1)}


def test_broken_rows_fail_alone_with_their_numbers(tmp_path: Path) -> None:
    text = b'product_id,title\n1,a\n2\n3,c,d\n,e\n5,\xe9\n6,g\0\n7,"f"x\n8,g\n'
    entries = read(file(tmp_path, text))
    assert ids(entries) == ["1", "7", "8"]
    found = errors(entries)
    assert "1 cells; the header has 2" in found[2]
    assert "no product id" in found[4]
    assert "not in utf-8; say the file's encoding" in found[5]
    assert set(found) == {2, 3, 4, 5, 6}


@pytest.mark.parametrize("size", [1_000, 300_000])
def test_nothing_within_a_quoted_cell_becomes_a_product(tmp_path: Path, size: int) -> None:
    page = "<p>\nX1,injected,y\n" * (size // 20)
    entries = read(file(tmp_path, f'product_id,title,page\n1,a,x\n2,"b"x,"{page}"\n3,c,\n'))
    assert ids(entries) == ["1", "2", "3"]
    closed = read(file(tmp_path, f'product_id,title,page\n1,a,x\n2,b,"{page}\n3,c,z\n'))
    assert ids(closed) == ["1"]
    assert errors(closed) == {2: "a quote in this row is never closed; what is behind it is not read"}


@pytest.mark.parametrize("name", ["shop.csv", "shop.jsonl", "shop.xml"])
def test_a_row_is_bounded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MAX_ROW_BYTES", 50_000)
    large = "x" * 200_000
    content = {
        "shop.csv": f'product_id,title\n1,a\n2,"{large}"\n3,c\n',
        "shop.jsonl": f'{{"product_id": "1"}}\n{{"product_id": "{large}"}}\n',
        "shop.xml": f"<rss><item><id>1</id></item><item><id>{large}</id></item></rss>",
    }
    entries = read(file(tmp_path, content[name], name))
    assert ids(entries) == ["1"]
    assert "50,000" in errors(entries)[2]


def test_a_quote_that_is_never_closed_costs_the_rows_behind_it_alone(tmp_path: Path) -> None:
    text = f'product_id,title\n1,a\n2,"{("x" * 999 + chr(10)) * 18_000}'
    entries = read(file(tmp_path, text))
    assert ids(entries) == ["1"]
    assert "16,777,216 bytes" in errors(entries)[2]


@pytest.mark.parametrize("name", ["shop.csv", "shop.jsonl"])
def test_empty_lines_do_not_add_up_to_a_row(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MAX_ROW_BYTES", 50_000)
    rows = {"shop.csv": ("product_id,title\n1,\n", ",\n", "2,\n")}
    before, empty, behind = rows.get(name, ('{"product_id": 1}\n', " \n", '{"product_id": 2}\n'))
    entries = read(file(tmp_path, before + empty * 200_000 + behind, name))
    assert (ids(entries), errors(entries)) == (["1", "2"], {})


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../x.jpg", "link.jpg", "bad\0name"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (tmp_path / "target.jpg").write_bytes(b"x")
    (folder / "link.jpg").symlink_to(tmp_path / "target.jpg")
    entries = read(file(folder, f"product_id,images\n1,{name}\n2,{folder}/inside.jpg\n"))
    assert 1 in errors(entries)
    assert ids(entries) == ["2"]


@pytest.mark.parametrize(("held", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_path_is_found_however_its_accents_are_composed(tmp_path: Path, held: Any, named: Any) -> None:
    image = tmp_path / unicodedata.normalize(held, "robe-été.jpg")
    image.write_bytes(b"x")
    name = unicodedata.normalize(named, image.name)
    assert records(read(file(tmp_path, f"product_id,images\n1,{name}\n")))[0].images == (image,)


def test_a_table_without_an_image_column_keeps_images(tmp_path: Path) -> None:
    assert records(read(file(tmp_path, "product_id,title\n1,a\n")))[0].images is None
    assert records(read(file(tmp_path, "product_id,images\n1,\n")))[0].images == ()


@pytest.mark.parametrize(
    "ending", ["csv", "csv.gz", "csv.zst", "parquet", "jsonl", "jsonl.gz", "xlsx", "xml"]
)
def test_a_manifest_goes_on_behind_its_position(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"shop.{ending}"
    match ending.partition(".")[0]:
        case "parquet":
            parquet_file(tmp_path, {"product_id": list(range(9))}, row_group_size=4)
        case "xlsx":
            workbook(tmp_path, ["product_id"], *([number] for number in range(9)))
        case "xml":
            path.write_text("<feed>" + "".join(f"<entry><id>{n}</id></entry>" for n in range(9)) + "</feed>")
        case "jsonl":
            path.write_text("".join(f'{{"product_id": {n}}}\n' for n in range(9)))
        case _:
            path.write_text("product_id,title\n" + "".join(f"{n},t\n" for n in range(9)))
    if ending.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif ending.endswith(".zst"):
        path.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
    opened = source(path)
    every = list(opened.entries(None))
    assert [each.product_id for each in every] == [str(number) for number in range(9)]
    assert opened.total() == 9
    for entry in every:
        assert list(opened.entries(entry.position)) == every[entry.row :]


@pytest.mark.parametrize("name", ["shop.json", "shop.jsonl"])
@pytest.mark.parametrize("text", ['{"id": 1}\n{"id": 2}\n', ' [{"id": 1},\n 3, {"id": 2}]\n'])
def test_json_is_a_list_or_an_object_a_line(tmp_path: Path, name: str, text: str) -> None:
    assert ids(read(file(tmp_path, "\ufeff" + text, name))) == ["1", "2"]


def test_json_lines_take_the_shape_of_the_api(tmp_path: Path) -> None:
    first = {
        "product_id": "a", "title": "A", "attributes": {"tags": ["x"], "gone": None}, "images": ["a.jpg"]
    }  # fmt: skip
    lines = [json.dumps(first), "", "{", "[1]", '{"title": "nameless"}', '{"product_id": "b"}']
    entries = read(file(tmp_path, "\ufeff" + "\n".join(lines), "shop.jsonl"))
    assert records(entries) == [
        Record("a", "A", "", {"tags": ["x"]}, (tmp_path / "a.jpg",)),
        Record("b", "", "", {}, None),
    ]
    assert set(errors(entries)) == {2, 3, 4}


def test_nested_fields_are_named_with_dots(tmp_path: Path) -> None:
    media = [{"url": "https://shop.test/1"}, {"alt": "none"}]
    path = file(tmp_path, json.dumps({"id": 7, "name": {"en": "Seven"}, "media": media, "k": 1}), "s.jsonl")
    fields = {"product_id": "id", "title": "name.en", "images": ["media.url"], **REST}
    assert records(read(path, fields)) == [Record("7", "Seven", "", {"k": 1}, ("https://shop.test/1",))]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    columns = {
        "product_id": pa.array([1.0, None], pa.float64()),
        "images": [["a.jpg", None], None],
        "price": [Decimal("10.50"), Decimal("2.00")],
        "since": [date(2024, 1, 2), None],
        "seen": [datetime(2024, 1, 2, 3), None],
        "rating": [float("nan"), 1.0],
        "brand": pa.array(["Elm", None]).dictionary_encode(),
        "title": pa.array([b"bytes", None], pa.binary()),
    }
    entries = read(parquet_file(tmp_path, columns), REST)
    (first,) = records(entries)
    assert (first.product_id, first.title, first.images) == ("1", "bytes", (tmp_path / "a.jpg",))
    times = {"since": "2024-01-02", "seen": "2024-01-02T03:00:00"}
    assert first.attributes == {"price": 10.5, "brand": "Elm", **times}
    assert "no product id" in errors(entries)[2]


def test_what_json_does_not_know_is_a_text(tmp_path: Path) -> None:
    code = UUID(int=7)
    columns = {"id": pa.array([code.bytes], pa.uuid()), "worn": [timedelta(hours=1)], "code": ["00123"]}
    (found,) = records(read(parquet_file(tmp_path, columns), REST))
    assert (found.product_id, found.attributes) == (str(code), {"worn": "1:00:00", "code": "00123"})


def test_columns_of_parquet_that_nothing_reads_cost_nothing(tmp_path: Path) -> None:
    bad = pa.array([b"caf\xe9", b"b"], pa.binary()).view(pa.string())
    columns = {"the.id": ["1", "2"], "note": bad, "media": [{"url": "a.jpg", "alt": "x"}, None]}
    path = parquet_file(tmp_path, columns)
    fields = {"product_id": "the.id", "images": ["media.url"]}
    assert [each.images for each in records(read(path, fields))] == [(tmp_path / "a.jpg",), ()]
    assert set(errors(read(path, fields | REST))) == {1}


def test_maps_and_structs_of_parquet_are_objects_and_a_bad_cell_costs_its_row(tmp_path: Path) -> None:
    maps = pa.array(
        [[("brand", "Elm")], None, [("a", "1"), ("a", "2")], []], pa.map_(pa.string(), pa.string())
    )
    titles = pa.array([b"A", b"caf\xe9", b"C", b"D"], pa.binary()).view(pa.string())
    columns = {"product_id": ["1", "2", "3", "4"], "attributes": maps, "title": titles}
    entries = read(parquet_file(tmp_path, columns))
    assert [(each.title, each.attributes) for each in records(entries)] == [
        ("A", {"brand": "Elm"}),
        ("D", {}),
    ]
    assert set(errors(entries)) == {2, 3}
    path = parquet_file(tmp_path, {"product_id": ["1"], "attributes": [{"brand": "Elm", "gone": None}]})
    assert records(read(path))[0].attributes == {"brand": "Elm"}


def test_a_workbook_is_read_with_the_types_of_its_cells(tmp_path: Path) -> None:
    path = workbook(
        tmp_path,
        [],
        [" SKU ", "Name", "Image URL", "size", "code", "price", "new", "since", None],
        ["00123", "Dress", "https://shop.test/1.jpg", 38, "12", 10, True, date(2024, 1, 2), "a note"],
        [None, " "],
        [42, "#N/A", None, "M", "007", 12.5, False],
    )
    dress, hat = records(read(path, REST))
    assert (dress.product_id, dress.title, dress.images) == ("00123", "Dress", ("https://shop.test/1.jpg",))
    rest = {"size": "38", "code": "12", "price": 10, "new": True, "since": "2024-01-02T00:00:00"}
    assert dress.attributes == rest
    assert hat == Record("42", "", "", {"size": "M", "code": "007", "price": 12.5, "new": False}, ())


def test_the_workbook_of_numbers_begins_with_a_list_of_sheets_and_a_title(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].title = "Export Summary"
    book.worksheets[0].append(["This document was exported from Numbers."])
    sheet = book.create_sheet("Sheet 1")
    for row in (["Table 1"], ["SKU", "Name"], [7, "Hat"]):
        sheet.append(row)
    book.save(tmp_path / "shop.xlsx")
    assert records(read(tmp_path / "shop.xlsx")) == [Record("7", "Hat", "", {}, None)]


SHOPIFY = (
    "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,"
    "Variant Price,Image Src,Image Position,Image Alt Text,Gift Card,Variant Image,Status\n"
    'dress,Red dress,"<p>Long,\nred</p>",Elm,Apparel,Dress,"red, new",TRUE,Size,S,D-S,49.90,'
    "https://cdn.shop.test/1.jpg?v=1,1,front,false,https://cdn.shop.test/2.jpg?v=1,active\n"
    "dress,,,,,,,,,M,D-M,49.90,https://cdn.shop.test/2.jpg?v=1,2,,,,\n"
    "dress,,,,,,,,,,,,https://cdn.shop.test/3.jpg?v=1,3,,,,\n"
    "hat,Hat,,Fjord,Apparel,Hat,,TRUE,Title,Default Title,H,5.00,https://cdn.shop.test/h.jpg,1,,false,,active\n"
)
SHOPIFY_NEW = (
    "Title,URL handle,Description,Vendor,Type,SKU,Option1 name,Option1 value,Price,Product image URL,"
    "Image position,Variant image URL\n"
    "Red dress,dress,<p>Long</p>,Elm,Dress,D-S,Size,S,49.90,https://cdn.shop.test/1.jpg,1,\n"
    ",dress,,,,D-M,Size,M,49.90,https://cdn.shop.test/2.jpg,2,\n"
)
WOOCOMMERCE = (
    '\ufeffID,Type,SKU,Name,Published,"Is featured?","Visibility in catalog","Short description",Description,'
    '"Regular price",Categories,Images,Parent,"Attribute 1 name","Attribute 1 value(s)"\n'
    '44,variable,tee,"V-Neck",1,0,visible,Short.,"Long, really.",,"Clothing > Tees",'
    '"https://woo.test/a.jpg, https://woo.test/b,c.jpg",,Color,"Blue, Green"\n'
    '76,variation,,"V-Neck - Blue",1,0,visible,,,15,,https://woo.test/b.jpg,tee,Color,Blue\n'
)
MAGENTO = (
    "sku,store_view_code,attribute_set_code,product_type,name,description,short_description,price,base_image,"
    "additional_images,qty\n24-MB01,,Bag,simple,Joust Bag,Long.,Short.,34.0000,a.jpg,\"a.jpg,b.jpg\",100\n"
)  # fmt: skip
GOOGLE_TSV = (
    "id\ttitle\tdescription\tlink\timage_link\tadditional_image_link\tavailability\tprice\tgtin\n"
    "00A1\tMug\tWhite\thttps://m.test/a1\thttps://m.test/1.jpg\thttps://m.test/2.jpg,https://m.test/3.jpg\t"
    "in_stock\t9.90 EUR\t04012345678901\n"
)
GOOGLE_XML = """<?xml version="1.0" encoding="utf-8"?>
<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title><link>https://m.test</link>
<item><title>of RSS</title><g:id>00A1</g:id><g:title><![CDATA[Mug & cup]]></g:title>
<g:description>White</g:description><link>https://m.test/a1</link><g:image_link>https://m.test/1.jpg</g:image_link>
<g:additional_image_link>https://m.test/2.jpg</g:additional_image_link>
<g:additional_image_link>https://m.test/3.jpg</g:additional_image_link>
<g:shipping><g:country>US</g:country><g:price>0 USD</g:price></g:shipping><g:price>9.90 EUR</g:price></item>
<item><g:id>2</g:id><title>Atom of RSS</title></item></channel></rss>"""


def cdn(*names: str) -> tuple[str, ...]:
    return tuple(f"https://cdn.shop.test/{name}.jpg?v=1" for name in names)


MUG = Record("00A1", "Mug", "White", {}, tuple(f"https://m.test/{number}.jpg" for number in (1, 2, 3)))


@pytest.mark.parametrize(
    ("name", "content", "first", "others"),
    [
        (
            "products_export_1.csv",
            SHOPIFY,
            Record("dress", "Red dress", "<p>Long,\nred</p>", {}, cdn(*"123")),
            ["hat"],
        ),
        (
            "products.csv",
            SHOPIFY_NEW,
            Record("dress", "Red dress", "<p>Long</p>", {}, tuple(f"https://cdn.shop.test/{n}.jpg" for n in "12")),
            [],
        ),
        (
            "wc-product-export.csv",
            WOOCOMMERCE,
            Record("44", "V-Neck", "Long, really.", {}, ("https://woo.test/a.jpg", "https://woo.test/b,c.jpg")),
            ["76"],
        ),
        ("feed.txt", GOOGLE_TSV, MUG, []),
        ("feed.xml", GOOGLE_XML, Record("00A1", "Mug & cup", "White", {}, MUG.images), ["2"]),
    ],
)  # fmt: skip
def test_exports_of_shops_need_no_options(
    tmp_path: Path, name: str, content: str, first: Record, others: list[str]
) -> None:
    entries = read(file(tmp_path, content, name))
    assert errors(entries) == {}
    assert entries[0].content == first
    assert ids(entries[1:]) == others


def test_the_attributes_of_variants_are_lists(tmp_path: Path) -> None:
    dress, hat = records(read(file(tmp_path, SHOPIFY), REST))
    assert {name: dress.attributes[name] for name in ("Option1 Value", "Variant Price", "Vendor")} == {
        "Option1 Value": ["S", "M"], "Variant Price": "49.90", "Vendor": "Elm",
    }  # fmt: skip
    assert hat.attributes["Published"] is True


def test_rows_of_one_product_go_on_behind_it_and_a_broken_one_costs_itself(tmp_path: Path) -> None:
    text = "sku,name,image,size\na,A,1.jpg,S\nbroken\na,,2.jpg,M\na,,../x,L\nb,B,3.jpg,S\na,,4.jpg,S\n"
    path = file(tmp_path, text)
    assert ids(read(path)) == ["a", "a", "b", "a"]
    opened = source(path, REST, group_rows=True)
    every = list(opened.entries(None))
    assert set(errors(every)) == {2, 4}
    assert opened.total() is None
    products = [each for each in every if isinstance(each.content, Record)]
    assert [(each.row, each.position) for each in products] == [(1, "3"), (5, "5"), (6, "6")]
    assert products[0].content == Record(
        "a", "A", "", {"size": ["S", "M"]}, (tmp_path / "1.jpg", tmp_path / "2.jpg")
    )
    assert list(opened.entries(products[0].position))[-2:] == products[1:]
    # What comes before its product makes an import that goes on there read that product.
    for entry in every[: every.index(products[0])]:
        assert products[0] in list(opened.entries(entry.position))
    assert ids(read(file(tmp_path, SHOPIFY), group_rows=False)) == ["dress", "dress", "dress", "hat"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *((f"s.{end}", b"\0\1no table", "s[.]") for end in ("parquet", "jsonl", "xlsx", "xml", "csv", "ods")),
        ("s.csv", b"", "name the columns"),
        ("s.csv", b"\n", "name the columns"),
        ("s.jsonl", b"[1]", "not a JSON object"),
        ("s.json", b'[{"product_id": "1"}', "not JSON"),
        ("s.xml", b'<!DOCTYPE r [<!ENTITY e "x">]><rss><item><id>&e;</id></item></rss>', "DTDForbidden"),
        ("s.csv.gz", gzip.compress(b"product_id\n1\n", mtime=0)[:-9], "cannot be read"),
        ("s.parquet.gz", b"", "a table is one of"),
        ("nowhere.csv", None, "there is no file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        file(tmp_path, content, name)
    with pytest.raises(InvalidInput, match=message) as caught:
        read(tmp_path / name)
    assert caught.value.param == "source.path"


def test_a_workbook_that_unpacks_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MAX_WORKBOOK_BYTES", 1_000)
    with pytest.raises(InvalidInput, match="unpacks to more than 1,000 bytes"):
        read(workbook(tmp_path, ["product_id"], ["1"]))


def test_a_sheet_with_more_lines_than_a_sheet_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MAX_SHEET_LINES", 1_000)
    path = workbook(tmp_path, ["product_id"], ["1"])
    assert ids(read(path)) == ["1"]
    book = openpyxl.load_workbook(path)
    book.worksheets[0]["A1001"] = "2"
    book.save(path)
    with pytest.raises(InvalidInput, match="at most 1,000 lines"):
        read(path)


def test_a_feed_that_is_cut_off_keeps_what_came_before(tmp_path: Path) -> None:
    entries = read(file(tmp_path, GOOGLE_XML[: GOOGLE_XML.index("<g:id>2")], "feed.xml"))
    assert ids(entries) == ["00A1"]
    assert "not XML from here on" in errors(entries)[2]


def test_magentos_images_are_paths(tmp_path: Path) -> None:
    (bag,) = records(read(file(tmp_path, MAGENTO)))
    assert bag == Record("24-MB01", "Joust Bag", "Long.", {}, (tmp_path / "a.jpg", tmp_path / "b.jpg"))


@pytest.mark.parametrize("written", ["/m/b/a.jpg", "m\\b\\a.jpg", "./m/b/a.jpg"])
def test_a_path_may_be_written_as_magento_and_windows_do(tmp_path: Path, written: str) -> None:
    image = tmp_path / "m/b/a.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    assert records(read(file(tmp_path, f"sku,base_image\n1,{written}\n")))[0].images == (image,)


def test_images_have_numbered_columns(tmp_path: Path) -> None:
    (found,) = records(read(file(tmp_path, "SKU,IMAGE1,IMAGE2,image_3\n1,a.jpg,b.jpg,c.jpg\n")))
    assert found.images == tuple(tmp_path / f"{name}.jpg" for name in "abc")


@pytest.mark.parametrize(
    ("cell", "more", "images"),
    [
        ("a,1.jpg;b.jpg", {"fields": {"images_separator": ";"}}, ["a,1.jpg", "b.jpg"]),
        ("a,1.jpg|b c.jpg", {}, ["a,1.jpg", "b c.jpg"]),
        ("https://s.test/a,b.jpg; https://s.test/c.jpg", {}, ["https://s.test/a,b.jpg", "https://s.test/c.jpg"]),
        ('["a.jpg", "b.jpg"]', {}, ["a.jpg", "b.jpg"]),
    ],
)  # fmt: skip
def test_several_images_in_a_cell(tmp_path: Path, cell: str, more: dict[str, Any], images: list[str]) -> None:
    (found,) = records(read(file(tmp_path, f"product_id\timages\n1\t{cell}\n"), **more, delimiter="tab"))
    assert found.images is not None
    assert [str(each).removeprefix(f"{tmp_path}/") for each in found.images] == images


def test_a_manifest_that_changed_has_another_version(tmp_path: Path) -> None:
    before = source(file(tmp_path, "product_id\n1\n")).version
    assert source(tmp_path / "shop.csv").version == before
    assert source(file(tmp_path, "product_id\n1\n2\n")).version != before


@pytest.mark.parametrize("image", ["//cdn.shop.test/1.jpg", "data:image/png;base64,iVBORw0KGgo="])
def test_an_image_without_http_before_it_is_a_url_as_well(tmp_path: Path, image: str) -> None:
    (record,) = records(read(file(tmp_path, f'id,images\n7,"{image}"\n')))
    assert record.images == (image,)
