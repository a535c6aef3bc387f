"""What the routes work with, put together once per replica."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from catalog.fetching.fetcher import Fetcher
from catalog.opening import Catalog
from core.errors import InputTooLarge
from core.null_samples import NullSamples
from core.ports import EncoderClient, VectorStore
from core.store_check import StoreCheck
from deployments.attributes import AttributeSummaries
from deployments.bulk_jobs import BulkJobs
from deployments.captioner import Captioner
from deployments.comparison import Comparison
from deployments.config import GatewayArgs, ServedModels
from deployments.embedder import Embedder
from deployments.encoders import EncoderSet
from deployments.keyring import Keyring
from deployments.ledger_counts import LedgerCountsSample
from deployments.ray_jobs import RayJobs
from deployments.searches import Ensemble, ProductSearch
from deployments.status import Status
from deployments.stored import StoredParts
from deployments.thresholds import Thresholds
from deployments.thumbnails import Thumbnails
from deployments.writes import ProductWrites
from models.images import ImageLimits


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
    jobs: BulkJobs
    image_limits: ImageLimits
    keyring: Keyring
    max_images_per_product: int
    max_page: int

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
) -> Services:
    """Wire the services.

    `connect` gives the client of an encoder by its name; `exposed_at` is where Serve listens, if that is more
    than this machine.
    """
    encoders = EncoderSet(served.models, connect, catalog.ledger.versions)
    thresholds = Thresholds(encoders, NullSamples(catalog.products, store, args.calibration))
    counts = LedgerCountsSample(catalog.ledger, args.counts_ttl_s)
    check = StoreCheck(store, catalog.ledger)
    search = ProductSearch(catalog, store, encoders, ensemble, args.lexical, thresholds, check)
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
        status=Status(catalog, store, encoders, ensemble, args.ready_coverage, counts, check),
        attributes=AttributeSummaries(catalog.products),
        thumbnails=Thumbnails(catalog, args.images, args.thumbnails),
        jobs=BulkJobs(
            catalog,
            RayJobs(args.jobs.dashboard_url, args.jobs.deadline_s),
            args.jobs.deadline_s,
            served.models,
            args.jobs.imports.folders,
        ),
        image_limits=args.images,
        keyring=Keyring(catalog.api_keys, args.door, exposed_at),
        max_images_per_product=args.max_images_per_product,
        max_page=args.max_page,
    )


def services(request: Request) -> Services:
    """Return the services of the replica that answers this request."""
    current: Services = request.app.state.services
    return current
