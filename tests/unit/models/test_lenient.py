"""An image whose pixels are whole is taken, whatever is wrong beside them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import ChunkStream

from core.errors import InputTooLarge, InvalidImage, Overloaded
from models.images import ImageLimits, decoding, inspect_image
from tests.support.image_files import decode_image, file, png_section, smooth

LIMITS = ImageLimits()
IMAGE = smooth(80, 60)
PNG = file(IMAGE)
AFTER_HEADER, BEFORE_END = 33, len(PNG) - 12
TURNED = Image.Exif()
TURNED[0x0112] = 6
BOMB = zlib.compress(bytes(20 * 2**20))


def assert_taken(data: bytes, image: Image.Image = IMAGE, most: int = 0) -> None:
    assert inspect_image(data, LIMITS).width == image.width
    for target in (None, 20):
        with decoding(data, LIMITS, target) as decoded:
            shown = np.asarray(decoded.image.resize(image.size), dtype=int)
    assert np.abs(shown - np.asarray(image, dtype=int)).max() <= most


@pytest.mark.parametrize("place", [AFTER_HEADER, BEFORE_END])
@pytest.mark.parametrize(
    "section",
    [
        png_section(b"zTXt", b"Comment\0\0" + BOMB),
        png_section(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
        png_section(b"iTXt", b"Comment\0\0\0\0\0\xff\xfe"),
        png_section(b"iCCP", b"profile\0\0" + BOMB),
        png_section(b"iCCP", b"profile\0\7no zlib"),
        png_section(b"tRNS", b"\0"),
        png_section(b"cHRM", b"\0"),
        png_section(b"gAMA", b""),
        png_section(b"acTL", struct.pack(">2I", 0, 0)),
        png_section(b"fcTL", b"\0"),
        png_section(b"eXIf", b"MM\0*" + b"\xff" * 30),
        png_section(b"tEXt", b"Comment\0of a checksum that is wrong")[:-1] + b"\0",
        png_section(b"iCCP", b"profile\0\0")[:-1] + b"\0",
    ],
    ids=lambda section: section[4:20] if isinstance(section, bytes) else None,
)
def test_what_stands_beside_the_pixels_of_a_png_is_passed_over(section: bytes, place: int) -> None:
    assert_taken(PNG[:place] + section + PNG[place:])


def test_sections_of_pixels_and_repeated_ones_do_not_reach_the_decoder_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[object] = []
    read = ChunkStream.read

    def counted(stream: ChunkStream) -> tuple[bytes, int, int]:
        reads.append(found := read(stream))
        return found

    monkeypatch.setattr(ChunkStream, "read", counted)
    pixels = b"".join(
        png_section(b"IDAT", bytes([each])) + png_section(b"IDAT", b"")
        for each in zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(IMAGE)))
    )
    orientations = png_section(b"eXIf", b"") * 1_000
    data = PNG[:AFTER_HEADER] + orientations + pixels + PNG[BEFORE_END:]
    assert np.array_equal(np.asarray(decode_image(data, LIMITS)), np.asarray(IMAGE))
    assert 0 < len(reads) < 10


@pytest.mark.parametrize("missing", range(1, 21, 3))
def test_a_png_needs_no_end(missing: int) -> None:
    assert_taken(PNG[:-missing])


def test_a_png_is_upright_by_metadata_at_its_end() -> None:
    data = PNG[:BEFORE_END] + png_section(b"eXIf", TURNED.tobytes()[6:]) + PNG[BEFORE_END:]
    assert decode_image(data, LIMITS).size == (60, 80)


@pytest.mark.parametrize("wrong", [-20, -1, 1, 1000])
def test_a_webp_may_be_wrong_about_its_size(wrong: int) -> None:
    plain = file(IMAGE, "WEBP", lossless=True)
    assert_taken(plain[:4] + struct.pack("<I", len(plain) - 8 + wrong) + plain[8:])


@pytest.mark.parametrize("left", [0, 4, 8, 20])
def test_a_webp_whose_metadata_is_cut_off_is_whole(left: int) -> None:
    data = file(IMAGE, "WEBP", lossless=True, exif=TURNED)
    assert_taken(data[: data.index(b"EXIF") + left])


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True, "subsampling": 0}], ids=str
)
@pytest.mark.parametrize("end", [b"", b"\xff", b"\0" * 100, b"\xff\xd9", b"\xff\xd9 of the camera's own"])
def test_a_jpeg_with_all_its_rows_is_whole_whatever_its_end(options: dict[str, int], end: bytes) -> None:
    data = file(smooth(333, 251), "JPEG", quality=95, **options)
    assert data.endswith(b"\xff\xd9")
    assert_taken(data[:-2] + end, smooth(333, 251), 40)


@pytest.mark.parametrize(("kind", "body"), [(0xE0, b"JFIF"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe")])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_metadata_of_a_jpeg_that_is_too_short_is_passed_over(mode: str, kind: int, body: bytes) -> None:
    data = file(IMAGE.convert(mode), "JPEG", quality=95, exif=TURNED)
    section = struct.pack(">2BH", 0xFF, kind, 2 + len(body)) + body
    plain, found = (decode_image(each, LIMITS) for each in (data, data[:2] + section + data[2:]))
    assert found.size == (60, 80)
    assert found.tobytes() == plain.tobytes()


def test_a_second_image_that_is_cut_off_leaves_the_first_whole() -> None:
    data = file(IMAGE, "MPO", save_all=True, append_images=[smooth(80, 60, 1)], quality=95)
    assert_taken(data[:-300], IMAGE, 40)


def test_the_end_of_a_thumbnail_is_not_that_of_its_jpeg() -> None:
    exif = Image.Exif()
    exif[0x010E] = file(smooth(8, 8), "JPEG").decode("latin-1").encode()
    data = file(smooth(300, 200), "JPEG", exif=exif.tobytes() + b"\xff\xda \xff\xd9")
    assert_taken(data[:-2], smooth(300, 200), 40)
    with pytest.raises(InvalidImage, match="truncated"):
        inspect_image(data[: int(len(data) * 0.9)], LIMITS)


HEIC = file(IMAGE, "HEIF", quality=90)


def test_a_heic_under_the_name_of_its_container_is_read() -> None:
    assert_taken(HEIC.replace(b"ftypheic", b"ftypmif1"), IMAGE, 40)


def test_a_heic_beyond_the_limits_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    for limits in (ImageLimits(max_side=79), ImageLimits(max_pixels=4799)):
        with pytest.raises(InputTooLarge, match="80 x 60"):
            inspect_image(HEIC, limits)


def test_a_heic_that_understates_its_size_is_refused() -> None:
    data, at = file(smooth(1024, 768), "HEIF"), 0
    while (at := data.find(b"ispe", at + 1)) > 0:
        data = data[: at + 8] + struct.pack(">2I", 64, 48) + data[at + 16 :]
    for read in (inspect_image, decode_image):
        with pytest.raises(InvalidImage):
            read(data, LIMITS)


def test_a_heic_waits_for_pixels_in_flight() -> None:
    limits = ImageLimits(max_pixels_in_flight=5000)
    with decoding(HEIC, limits), pytest.raises(Overloaded):
        inspect_image(HEIC, limits, until=0)
