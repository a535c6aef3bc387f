"""A process that removes unnamed image files, and is killed in the midst of the first removal.

Arguments: database URL, blobs URL, and when: `before` the file is deleted or `after` it.
"""

import os
import signal
import sys

from catalog.blobs import FsspecBlobs
from catalog.database import CatalogConfig
from catalog.image_files import SqlImageFiles
from catalog.opening import open_catalog


class Deadly(FsspecBlobs):
    def remove(self, sha256: str) -> None:
        if sys.argv[3] == "after":
            super().remove(sha256)
        os.kill(os.getpid(), signal.SIGKILL)


config = CatalogConfig(database_url=sys.argv[1], blobs_url=sys.argv[2])
SqlImageFiles(open_catalog(config).engine, Deadly(config.blobs_url)).collect(0, 10)
