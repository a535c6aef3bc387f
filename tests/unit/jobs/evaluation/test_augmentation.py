import io

import numpy as np
import pytest
from PIL import Image

from jobs.evaluation.queries import CHANGES, changed

IMAGE = Image.fromarray(
    np.kron(np.random.default_rng(0).integers(0, 256, (8, 6, 3)), np.ones((40, 40, 1))).astype(np.uint8)
)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    files = [changed(IMAGE, np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    assert files[0] == files[1] != files[2]


def test_the_image_that_is_given_stays_as_it_is() -> None:
    before = IMAGE.tobytes()
    for seed in range(10):
        changed(IMAGE, np.random.default_rng(seed))
    assert IMAGE.tobytes() == before


@pytest.mark.parametrize("name", list(CHANGES))
def test_every_change_changes_the_image(name: str) -> None:
    after = CHANGES[name](IMAGE.copy(), np.random.default_rng(0))
    assert after.mode == "RGB"
    assert after.size != IMAGE.size or after.tobytes() != IMAGE.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3000, 2), (17, 33)])
def test_images_of_any_shape_come_out_as_jpegs(size: tuple[int, int]) -> None:
    for seed in range(12):
        file, names = changed(Image.new("RGB", size, (200, 30, 30)), np.random.default_rng(seed))
        image = Image.open(io.BytesIO(file))
        image.load()
        assert image.format == "JPEG"
        assert len(names.split(" + ")) == 2


def test_every_change_is_drawn_some_time() -> None:
    drawn = {
        name for seed in range(60) for name in changed(IMAGE, np.random.default_rng(seed))[1].split(" + ")
    }
    assert drawn == set(CHANGES)
