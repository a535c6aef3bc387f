import numpy as np

from demo.dataset import INPUT_SIZE, training_pictures
from demo.garments import draw
from demo.looks import BACKGROUNDS, Look, garments, split_garments


def test_a_tenth_of_the_garments_is_never_trained() -> None:
    trained, never_trained = split_garments()
    assert len(never_trained) == 50
    assert set(trained).isdisjoint(never_trained)
    assert set(trained) | set(never_trained) == set(garments())


def test_training_pictures_show_trained_garments_only() -> None:
    _, never_trained = split_garments()
    shown = {look.garment for look in training_pictures(120, processes=1).looks}
    assert shown.isdisjoint(never_trained)


def test_the_same_seed_draws_the_same_training_pictures() -> None:
    first, again = (training_pictures(6, seed=2, processes=1) for _ in range(2))
    assert first.looks == again.looks
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.pixels.shape == (6, INPUT_SIZE, INPUT_SIZE, 3)


def test_drawing_in_several_processes_changes_nothing() -> None:
    np.testing.assert_array_equal(
        training_pictures(8, processes=1).pixels, training_pictures(8, processes=2).pixels
    )


def test_labels_are_places_in_the_vocabularies() -> None:
    pictures = training_pictures(5, processes=1)
    assert [BACKGROUNDS[place] for place in pictures.labels[:, 3]] == [
        look.background for look in pictures.looks
    ]


def test_a_view_moves_the_garment_and_keeps_its_dye() -> None:
    look, item = Look("bag", "green", "plain", "white"), 11
    one, other = (_pixels(look, item, view) for view in (1, 2))
    assert not np.array_equal(one, other)
    for picture in (one, other):
        greenness = picture[..., 1].astype(int) - np.maximum(picture[..., 0], picture[..., 2])
        assert np.mean(greenness > 40) > 0.1


def _pixels(look: Look, item: int, view: int) -> np.typing.NDArray[np.uint8]:
    return np.asarray(draw(look, 96, np.random.SeedSequence(item), np.random.SeedSequence(view)))
