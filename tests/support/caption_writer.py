"""Program that captions a catalog, one image a call, to be killed."""

import asyncio
import sys
from collections.abc import Sequence

from catalog.database import CatalogConfig
from catalog.opening import open_catalog
from core.indexing import Captioner
from core.types import Captioned
from models.config import CaptionConfig
from tests.support.local_encoder import LocalEncoder


class Teller(LocalEncoder):
    async def caption(self, images: Sequence[bytes]) -> Captioned:
        print("asked", flush=True)
        return await super().caption(images)


def main(database_url: str, blobs_url: str) -> None:
    catalog = open_catalog(CatalogConfig(database_url=database_url, blobs_url=blobs_url))
    encoder = Teller("fake", captions=CaptionConfig())
    asyncio.run(Captioner(encoder, catalog.captions, catalog.blobs).repair(batch_size=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
