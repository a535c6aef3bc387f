"""Open the source that a caller describes."""

import os

from catalog.fetching.fetcher import Fetcher
from catalog.sources.entries import Source
from catalog.sources.folder import Folder
from catalog.sources.manifest import Manifest
from catalog.sources.remote import Remote
from core.errors import InvalidInput
from core.importing import ImportConfig
from core.sources import FolderSource, ManifestSource, RemoteSource


def open_source(
    description: FolderSource | ManifestSource | RemoteSource, fetcher: Fetcher, config: ImportConfig
) -> Source:
    """Open a source; a token is read from the environment here, and kept nowhere else.

    Raises:
        InvalidInput: it cannot be read, or its token is not set.
    """
    match description:
        case FolderSource():
            return Folder(description)
        case ManifestSource():
            return Manifest(description)
        case RemoteSource():
            return Remote(description, _token(description.token_env), fetcher, config)


def _token(name: str | None) -> str | None:
    if name is None:
        return None
    token = os.environ.get(name, "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidInput(f"{name} holds no token in the environment of the job").at("source.token_env")
    return token
