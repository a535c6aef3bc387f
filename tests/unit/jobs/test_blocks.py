"""Tables between the stages of a build: nothing is lost or mixed up, and pixels are read where they lie."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.errors import Internal, InvalidImage, Unavailable
from core.types import IndexItem
from jobs.build.blocks import (
    ImageRow,
    decoded_table,
    encoded_rows,
    encoded_table,
    files_of,
    pixel_groups,
    without_files,
)
from models.encoder import Pixels


def item(number: int) -> IndexItem:
    return IndexItem(f"{number:032x}", 2, f"p{number}", "ab" * 32, {"color": ["red"], "n": number}, 10)


def pixels(number: int, height: int = 4, width: int = 6) -> Pixels:
    return np.full((3, height, width), number, np.uint8)


def only_batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.to_batches()
    return batch


def answered(table: pa.Table) -> pa.Table:
    """Do what a model does: a vector of an image's first pixel and its height."""
    tables = []
    for batch in table.to_batches():
        answers: dict[int, Any] = {}
        for rows, images in pixel_groups(batch):
            vectors = [np.array([each[0, 0, 0], each.shape[1]], np.float32) for each in images]
            answers |= zip(rows, vectors, strict=True)
        tables.append(encoded_table(batch, answers))
    return pa.concat_tables(tables)


def read(table: pa.Table) -> list[ImageRow]:
    return [row for batch in table.to_batches() for row in encoded_rows(batch)]


def mixed() -> pa.Table:
    return decoded_table(
        7.0,
        [
            ImageRow(item(0), pixels=pixels(0)),
            ImageRow(item(1), error=InvalidImage("cut off")),
            ImageRow(item(2), pixels=pixels(2, 8, 3)),
            ImageRow(item(3), vector=np.array([5, 6], np.float32)),
            ImageRow(item(4), pixels=pixels(4)),
            ImageRow(None, error=Unavailable("away")),
        ],
    )


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("cut", [6, 4, 1])
def test_every_row_keeps_its_own_answer_however_a_block_is_cut_or_joined(joined: bool, cut: int) -> None:
    whole = pa.concat_tables([mixed(), mixed()]) if joined else mixed()
    parts = [whole.slice(start, cut) for start in range(0, len(whole), cut)]
    rows = read(pa.concat_tables(answered(part) for part in parts))
    assert len(rows) == len(whole)
    for number, row in enumerate(rows[:6]):
        assert row.item == (None if number == 5 else item(number))
        assert row.pixels is None
    vectors = [None if row.vector is None else row.vector.tolist() for row in rows[:6]]
    assert vectors == [[0, 4], None, [2, 8], [5, 6], [4, 4], None]
    assert [type(row.error) for row in rows[:5]] == [type(None), InvalidImage, *[type(None)] * 3]
    assert str(rows[1].error) == "cut off"
    assert isinstance(rows[5].error, Unavailable)


def test_images_of_one_size_are_read_without_a_copy_also_between_rows_that_failed() -> None:
    rows = [ImageRow(item(n), pixels=pixels(n)) for n in range(5)]
    rows[2] = ImageRow(item(2), error=InvalidImage("cut off"))
    batch = only_batch(decoded_table(0.0, rows))
    ((numbers, images),) = pixel_groups(batch)
    assert numbers == [0, 1, 3, 4]
    assert images.shape == (4, 3, 4, 6)
    data = batch["pixels"].buffers()[2]
    assert images.ctypes.data == data.address
    assert images.nbytes == data.size
    assert images[:, 0, 0, 0].tolist() == [0, 1, 3, 4]


def test_images_of_several_sizes_come_in_a_batch_a_size() -> None:
    rows = [ImageRow(item(n), pixels=pixels(n, *((4, 6) if n % 2 else (6, 4)))) for n in range(5)]
    found = {
        images.shape[2:]: (numbers, images)
        for numbers, images in pixel_groups(only_batch(decoded_table(0, rows)))
    }
    assert {size: numbers for size, (numbers, _) in found.items()} == {(4, 6): [1, 3], (6, 4): [0, 2, 4]}
    for numbers, images in found.values():
        assert images[:, 2, -1, -1].tolist() == numbers


def test_the_model_s_error_takes_the_place_of_a_vector() -> None:
    batch = only_batch(decoded_table(3.0, [ImageRow(item(n), pixels=pixels(n)) for n in range(2)]))
    table = encoded_table(batch, {0: Internal("a bug"), 1: np.ones(2, np.float32)})
    first, second = read(table)
    assert isinstance(first.error, Internal)
    assert first.vector is None
    assert (second.error, second.vector is None) == (None, False)
    assert table["began"].to_pylist() == [3.0, 3.0]


@pytest.mark.parametrize("cut", [4, 2, 1])
def test_files_give_way_to_pixels_and_errors_and_all_else_stays(cut: int) -> None:
    rows = [
        ImageRow(item(0), file=b"first"),
        ImageRow(item(1), pixels=pixels(1)),
        ImageRow(item(2), file=b"second"),
        ImageRow(item(3), vector=np.array([5, 6], np.float32)),
    ]
    found: list[ImageRow] = []
    for batch in decoded_table(7.0, rows).to_batches(max_chunksize=cut):
        decoded: dict[int, Any] = {
            row: pixels(9, 8, 3) if file == b"first" else InvalidImage("cut off")
            for row, file in files_of(batch).items()
        }
        plain = without_files(batch, decoded)
        assert files_of(plain) == {}
        found += read(answered(pa.Table.from_batches([plain])))
    assert [row.item for row in found] == [item(n) for n in range(4)]
    vectors = [None if row.vector is None else row.vector.tolist() for row in found]
    assert vectors == [[9, 8], [1, 4], None, [5, 6]]
    assert [str(row.error) for row in found] == ["None", "None", "cut off", "None"]


def test_a_block_without_images_is_read_as_one() -> None:
    batch = only_batch(decoded_table(0.0, [ImageRow(None, error=Unavailable("away"))]))
    assert list(pixel_groups(batch)) == []
    (row,) = read(encoded_table(batch, {}))
    assert isinstance(row.error, Unavailable)
