"""The services that the routes use, assembled once per configuration of a gateway replica."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from catalog.fetching.fetcher import Fetcher
from catalog.opening import Catalog
from core.calibration import NullSamples
from core.errors import InputTooLarge
from core.ports import EncoderClient, VectorStore
from core.store_check import StoreCheck
from core.types import EncoderInfo
from deployments.config import GatewayArgs, PageConfig, ServedModels
from deployments.replicas.handles import Scale
from deployments.services.api_keys import ApiKeys
from deployments.services.compare import Comparison
from deployments.services.encoders import Captioner, Embedder, EncoderSet
from deployments.services.jobs import BulkJobs, RayJobs
from deployments.services.products import AttributeSummaries, ProductWrites
from deployments.services.search import Ensemble, ProductSearch, StoredParts
from deployments.services.status import Status, cached_counts
from deployments.services.thumbnails import Thumbnails
from models.images import ImageLimits

_BATCHES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Services:
    """The gateway's collaborators; replaced as a whole when the list of models changes."""

    catalog: Catalog
    encoders: EncoderSet
    embedder: Embedder
    captioner: Captioner
    fetcher: Fetcher
    search: ProductSearch
    comparison: Comparison
    stored: StoredParts
    writes: ProductWrites
    status: Status
    attributes: AttributeSummaries
    thumbnails: Thumbnails
    page: PageConfig
    jobs: BulkJobs
    image_limits: ImageLimits
    api_keys: ApiKeys
    max_images_per_product: int
    max_page: int
    index_schema: str
    """That of the collections that this service writes to: of one version there may be others."""
    batches: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_BATCHES_AT_ONCE))
    """Batches of products in work; each reads at most 128 MiB of images ahead."""

    def check_page(self, limit: int, offset: int) -> None:
        """Refuse pages beyond the configured depth."""
        if limit + offset > self.max_page:
            raise InputTooLarge(f"limit + offset may be at most {self.max_page}").at("limit")


def assemble(
    args: GatewayArgs,
    served: ServedModels,
    catalog: Catalog,
    store: VectorStore,
    connect: Callable[[str], EncoderClient],
    ensemble: Ensemble,
    exposed_at: str | None = None,
    scale: Callable[[str], Awaitable[Scale]] | None = None,
    last_info: Callable[[str, Scale], EncoderInfo | None] | None = None,
) -> Services:
    """Wire the services.

    `connect` returns the client of an encoder by its name. `exposed_at` is the address that Serve listens on,
    unless it is loopback. `scale` and `last_info` are for `Status`.
    """
    encoders = EncoderSet(served.models, connect, catalog.ledger.versions)
    samples = NullSamples(catalog.products, store, args.calibration)
    counts = cached_counts(catalog.ledger, args.counts_ttl_s)
    check = StoreCheck(store, catalog.ledger)
    search = ProductSearch(
        catalog, store, encoders, ensemble, args.keyword_search, samples, check, args.rerank_deadline_s
    )
    return Services(
        catalog=catalog,
        encoders=encoders,
        embedder=Embedder(encoders, args.embedding_model),
        captioner=Captioner(encoders, catalog.captions),
        fetcher=Fetcher(args.fetch),
        search=search,
        comparison=Comparison(search, encoders),
        stored=StoredParts(catalog),
        writes=ProductWrites(catalog, store, encoders, args.index_wait_s, check),
        status=Status(
            catalog, store, encoders, ensemble, args.ready_coverage, counts, check, scale, last_info
        ),
        attributes=AttributeSummaries(catalog.products),
        thumbnails=Thumbnails(catalog, args.images, args.thumbnails),
        page=args.page,
        jobs=BulkJobs(
            catalog,
            RayJobs(args.jobs),
            args.jobs.deadline_s,
            served.models,
            args.jobs.imports.folders,
        ),
        image_limits=args.images,
        api_keys=ApiKeys(catalog.api_keys, args.authentication, exposed_at),
        max_images_per_product=args.max_images_per_product,
        max_page=args.max_page,
        index_schema=args.milvus.index_schema,
    )
