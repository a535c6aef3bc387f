"""What the routes work with, put together once per replica."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from catalog.opening import Catalog
from core.errors import InputTooLarge
from core.ports import EncoderClient, VectorStore
from deployments.config import GatewayArgs, ServedModels
from deployments.encoders import EncoderSet
from deployments.searches import Ensemble, ProductSearch
from deployments.status import Status
from deployments.writes import ProductWrites
from models.images import ImageLimits


@dataclass(frozen=True, slots=True)
class Services:
    """The gateway's collaborators; replaced as a whole when the list of models changes."""

    catalog: Catalog
    encoders: EncoderSet
    search: ProductSearch
    writes: ProductWrites
    status: Status
    image_limits: ImageLimits
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
) -> Services:
    """Wire the services; `connect` gives the client of an encoder by its name."""
    encoders = EncoderSet(served.models, connect)
    return Services(
        catalog=catalog,
        encoders=encoders,
        search=ProductSearch(catalog, store, encoders, ensemble),
        writes=ProductWrites(catalog, store, encoders, args.index_wait_s),
        status=Status(catalog, store, encoders, ensemble, args.ready_coverage),
        image_limits=args.images,
        max_images_per_product=args.max_images_per_product,
        max_page=args.max_page,
    )


def services(request: Request) -> Services:
    """Return the services of the replica that answers this request."""
    current: Services = request.app.state.services
    return current
