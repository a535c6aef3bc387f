"""Embeddings and captions."""

from vitrine.answers import Caption, Embedding
from vitrine.call import Call, given, reader
from vitrine.calls.paths import path
from vitrine.pictures import Picture, encoded, is_url

_EMBEDDING, _CAPTION = reader(Embedding), reader(Caption)


def embed(model: str, *, text: str | None = None, picture: Picture | None = None) -> Call[Embedding]:
    """Return the unit vector of one text or one picture.

    Raises:
        InvalidRequest: both or none are given, or the model takes no such input.
        NotFound: there is no such model.
    """
    body = given(text=text) if picture is None else given(text=text, **_field(picture))
    return Call("POST", path("embed", model), _EMBEDDING, json=body)


def caption(picture: Picture, *, model: str | None = None) -> Call[Caption]:
    """Describe a picture in words; by default with the first model that can.

    Raises:
        InvalidRequest: the model writes no captions, or the picture cannot be read.
        NotFound: there is no such model, or none that writes captions.
    """
    return Call("POST", path("caption"), _CAPTION, json=given(model=model, **_field(picture)))


def _field(picture: Picture) -> dict[str, str]:
    return {"image_url" if is_url(picture) else "image": encoded(picture)}
