"""What every kind of job works with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from catalog.opening import Catalog
from core.store_check import StoreCheck
from jobs.run import JobRun
from jobs.settings import Settings
from milvus.store import MilvusStore


@dataclass(frozen=True, slots=True)
class JobContext:
    """The hold on the job, the configuration, and the open catalog; Ray is connected where the kind needs it.

    `at_shell`: who asked has a shell on this machine, and may read what this process may.
    """

    run: JobRun
    settings: Settings
    catalog: Catalog
    at_shell: bool = False


@contextmanager
def open_store(context: JobContext, known: bool = True) -> Iterator[MilvusStore]:
    """Connect to Milvus; `known`: only to the one that the ledger speaks of.

    Raises:
        StoreUnknown: it is another.
        Unavailable: it does not answer.
    """
    store = MilvusStore(context.settings.milvus)
    try:
        if known:
            StoreCheck(store, context.catalog.ledger).require()
        yield store
    finally:
        store.close()
