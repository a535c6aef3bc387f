"""A folder of images as a source."""

import json
from pathlib import Path

import pytest

from catalog.sources.entries import Entry, Record
from catalog.sources.folder import Folder, ImageFolder
from core.errors import InvalidInput
from core.sources import FolderSource


def read(folder: Path, after: str | None = None) -> list[Entry]:
    return list(Folder(FolderSource(kind="folder", path=str(folder))).entries(after))


def record(entry: Entry) -> Record:
    assert isinstance(entry.content, Record), entry.content
    return entry.content


def error(entry: Entry) -> str:
    assert isinstance(entry.content, InvalidInput), entry.content
    return entry.content.message


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "dress").mkdir(parents=True)
    for name in ("dress/b.jpg", "dress/a.PNG", "dress/notes.txt", "dress/.hidden.jpg", "hat.jpg", "list.txt"):
        (folder / name).write_bytes(b"x")
    return folder


def test_a_sub_folder_and_an_image_are_a_product_each(shop: Path) -> None:
    dress, hat = read(shop)
    assert (dress.row, dress.product_id, hat.row, hat.product_id) == (1, "dress", 2, "hat")
    assert record(dress).images == (shop / "dress/a.PNG", shop / "dress/b.jpg")
    assert record(hat) == Record("hat", "", "", {}, (shop / "hat.jpg",))


def test_every_usual_ending_of_an_image_is_read(shop: Path) -> None:
    names = ["1.jfif", "2.JPE", "3.HEIC", "4.heif", "5.avif", "6.WebP", "7.tif", "8.gif", "9.bmp"]
    for name in names:
        (shop / "dress" / name).write_bytes(b"x")
    assert record(read(shop)[0]).images == tuple(shop / "dress" / name for name in (*names, "a.PNG", "b.jpg"))


def test_a_name_with_decomposed_accents_is_a_composed_id(shop: Path) -> None:
    (shop / "zoe\u0301.jpg").write_bytes(b"x")
    assert [each.product_id for each in read(shop)] == ["dress", "hat", "zo\u00e9"]


def test_what_is_left_out_is_listed_but_for_system_files(shop: Path) -> None:
    (shop / "dress/back").mkdir()
    for name in (
        "hat.json",
        "coat.json",
        "dress/metadata.json",
        "dress/Thumbs.db",
        "dress/~$list.xlsx",
        "dress/x.jxl",
    ):
        (shop / name).write_text("{}")
    assert Folder(FolderSource(kind="folder", path=str(shop))).report() == {
        "format": "folder",
        "files_left_out": 5,
        "left_out": [
            "coat.json: .json is not the ending of an image",
            "list.txt: .txt is not the ending of an image",
            "dress/back: a folder in a product's folder",
            "dress/notes.txt: .txt is not the ending of an image",
            "dress/x.jxl: .jxl is not the ending of an image",
        ],
    }


def test_metadata_lies_beside_the_images(shop: Path) -> None:
    (shop / "dress/metadata.json").write_text(json.dumps({"title": "A dress", "attributes": {"price": 5}}))
    (shop / "hat.json").write_text("\ufeff" + json.dumps({"description": "warm"}), encoding="utf-8")
    dress, hat = read(shop)
    assert (record(dress).title, record(dress).attributes) == ("A dress", {"price": 5})
    assert record(hat).description == "warm"


@pytest.mark.parametrize("text", ["{", "[]", '{"price": 5}', '{"title": 5}', "[" * 100_000])
def test_metadata_that_is_none_fails_alone(shop: Path, text: str) -> None:
    (shop / "dress/metadata.json").write_text(text)
    dress, hat = read(shop)
    assert "metadata.json" in error(dress)
    assert record(hat).product_id == "hat"


def test_an_import_goes_on_behind_its_position(shop: Path) -> None:
    (shop / "shoe.jpg").write_bytes(b"x")
    entries = read(shop)
    assert read(shop, entries[0].position) == entries[1:]
    assert read(shop, entries[-1].position) == []


def test_a_link_out_of_the_folder_is_refused(shop: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.jpg").write_bytes(b"x")
    (shop / "dress/c.jpg").symlink_to(secret / "key.jpg")
    (shop / "away").symlink_to(secret)
    away, dress, hat = read(shop)
    assert "outside" in error(away)
    assert "outside" in error(dress)
    assert record(hat)


def test_a_folder_without_images_is_an_error(shop: Path) -> None:
    (shop / "empty").mkdir()
    assert "no image" in error(read(shop)[1])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        read(tmp_path / "nowhere")


@pytest.fixture
def album(tmp_path: Path) -> ImageFolder:
    folder = tmp_path / "album"
    (folder / "2023/sea side").mkdir(parents=True)
    for name in ("2023/sea side/b.jpg", "2023/a.PNG", "c.jpg", "c.png", "2023/notes.txt", "2023/.hidden.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "again").symlink_to(folder)
    return ImageFolder(FolderSource(kind="folder", path=str(folder), products="images"))


def test_each_image_at_any_depth_is_a_product_named_by_its_path(album: ImageFolder, tmp_path: Path) -> None:
    assert album.total() == 4
    assert [record(each) for each in album.entries(None)] == [
        Record("2023:a.PNG", "a", "2023", {"folder": "2023"}, (tmp_path / "album/2023/a.PNG",)),
        Record(
            "2023:sea side:b.jpg",
            "b",
            "2023 sea side",
            {"folder": "2023/sea side"},
            (tmp_path / "album/2023/sea side/b.jpg",),
        ),
        Record("c.jpg", "c", "", {}, (tmp_path / "album/c.jpg",)),
        Record("c.png", "c", "", {}, (tmp_path / "album/c.png",)),
    ]


def test_an_import_of_images_goes_on_behind_its_position(album: ImageFolder) -> None:
    entries = list(album.entries(None))
    assert list(album.entries(entries[1].position)) == entries[2:]


def test_files_beside_images_and_links_to_folders_are_listed(album: ImageFolder) -> None:
    assert album.report()["left_out"] == [
        "again: a link to a folder",
        "2023/notes.txt: .txt is not the ending of an image",
    ]


def test_a_link_from_an_image_folder_to_the_outside_is_refused(album: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "album/2023/d.jpg").symlink_to(tmp_path / "secret.jpg")
    assert ["outside" in error(each) for each in album.entries(None) if "d.jpg" in str(each.product_id)] == [
        True
    ]
