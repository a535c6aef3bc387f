"""Errors are said anew and carried between processes without losing what they hold."""

import pickle

from core.errors import FetchFailed, UnfetchableUrl, VitrineError


def test_an_error_in_other_words_keeps_what_it_carries() -> None:
    error = FetchFailed("too busy")
    error.retry_after_s = 7.0
    reworded = error.at("images[1]").reworded("image 'https://shop/1.jpg': too busy")
    assert isinstance(reworded, FetchFailed)
    assert (reworded.message, str(reworded)) == ("image 'https://shop/1.jpg': too busy",) * 2
    assert (reworded.retry_after_s, reworded.param) == (7.0, "images[1]")
    assert error.message == "too busy"


def test_an_error_travels_with_what_it_carries() -> None:
    error = UnfetchableUrl("gone")
    error.status = 410
    traveled: VitrineError = pickle.loads(pickle.dumps(error.reworded("row 3: gone")))
    assert isinstance(traveled, UnfetchableUrl)
    assert (traveled.message, traveled.status) == ("row 3: gone", 410)
