"""Embeddings and captions."""

from collections.abc import Sequence

from vitrine.answers import Caption, Embedding
from vitrine.batches import Embeddings
from vitrine.call import Call, given, reader
from vitrine.calls.paths import path
from vitrine.pictures import Picture, encoded, is_url

_EMBEDDING, _EMBEDDINGS, _CAPTION = reader(Embedding), reader(Embeddings), reader(Caption)


def embed(model: str, *, text: str | None = None, picture: Picture | None = None) -> Call[Embedding]:
    """Return the unit vector of one text or one picture.

    Raises:
        InvalidRequest: both or none are given, or the model takes no such input.
        NotFound: there is no such model.
    """
    body = given(text=text) if picture is None else given(text=text, **_field(picture))
    return Call("POST", path("embed", model), _EMBEDDING, json=body)


def embed_texts(model: str, texts: Sequence[str]) -> Call[Embeddings]:
    """Embed up to 2,048 texts; one that cannot be costs the others nothing.

    Raises:
        InvalidRequest: nothing could be embedded; `param` names the first input.
        NotFound: there is no such model.
    """
    return _many(model, "text", list(texts))


def embed_pictures(model: str, pictures: Sequence[Picture]) -> Call[Embeddings]:
    """Embed up to 64 pictures, paths, bytes or URLs; one that cannot be costs the others nothing.

    Raises:
        InvalidRequest: nothing could be embedded; `param` names the first input.
        NotFound: there is no such model.
        OSError: a picture's file cannot be read.
    """
    return _many(model, "image", [encoded(picture) for picture in pictures])


def caption(picture: Picture, *, model: str | None = None) -> Call[Caption]:
    """Describe a picture in words; by default with the first model that can.

    Raises:
        InvalidRequest: the model writes no captions, or the picture cannot be read.
        NotFound: there is no such model, or none that writes captions.
    """
    return Call("POST", path("caption"), _CAPTION, json=given(model=model, **_field(picture)))


def _many(model: str, modality: str, inputs: Sequence[str]) -> Call[Embeddings]:
    body = {"model": model, "modality": modality, "input": inputs}
    return Call("POST", path("embeddings"), _EMBEDDINGS, json=body)


def _field(picture: Picture) -> dict[str, str]:
    return {"image_url" if is_url(picture) else "image": encoded(picture)}
