"""Arguments and user configuration of all applications, as serve_config.yaml holds them."""

from pydantic import Field, field_validator

from catalog.database import MAX_IMAGES_PER_PRODUCT, CatalogConfig
from catalog.fetching.connections import FetchLimits
from core.calibration import CalibrationConfig
from core.config import BulkConfig, Config, EvaluationConfig
from core.fusion import Fusion
from core.search import ENSEMBLE
from core.sources import ImportConfig
from milvus.config import MilvusConfig, check_uri
from models.images import ImageLimits


class AuthenticationConfig(Config):
    """API keys and their rate limits; a limit counts per replica of the gateway."""

    admin_key_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="Lower-case hex sha256 of an admin key that is not in the database. It is the first key, and "
        "the key to use when all others are lost. Empty: no such key; the service must then listen on loopback.",
    )
    keys_ttl_s: float = Field(
        2.0, ge=0, description="How long keys are cached from the database, in seconds."
    )
    requests_per_s: float = Field(
        50.0, gt=0, description="Rate limit of a key in requests per second, unless the key has its own."
    )
    burst: int = Field(
        100, gt=0, description="Requests that a key may send at once, unless the key has its own limit."
    )


class AdmissionConfig(Config):
    """Admission control: how many requests a replica of the gateway works on, and for how long."""

    max_in_flight: int = Field(
        64, gt=0, description="Most requests in flight; further ones get 503 immediately."
    )
    search_slowdown: float = Field(
        1.5,
        gt=1,
        description="How many times its duration without load a search may take under load. The replica limits "
        "the searches in flight to keep this ratio; further ones get 503 immediately.",
    )
    request_deadline_s: float = Field(
        30.0,
        gt=0,
        description="How long a request may take in seconds, its body included. A caller may set a shorter "
        "deadline by the header X-Request-Timeout-Seconds.",
    )


class JobsConfig(Config):
    """Bulk work of the jobs API, which runs on Ray Jobs."""

    bulk: BulkConfig = Field(BulkConfig(), description="Resources and sizes of a bulk job.")
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(), description="How models are compared, and when a worse one is refused."
    )
    imports: ImportConfig = Field(ImportConfig(), description="What imports may read, and how fast.")
    dashboard_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="URL of Ray's dashboard, which accepts jobs; by default that of this cluster.",
    )
    process_resources: dict[str, float] = Field(
        {},
        description="Custom resources that the process of a job reserves, which choose its kind of node. Without "
        "these and without memory, Ray runs it on the head.",
    )
    process_memory_bytes: int = Field(
        0, ge=0, description="Memory that the process of a job reserves on its node, in bytes."
    )
    deadline_s: float = Field(15.0, gt=0, description="How long Ray may take to answer, in seconds.")


class KeywordSearchConfig(Config):
    """Keyword search beside vector search."""

    weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the keyword ranking in a text query to the ensemble, unless the request sets one: "
        "0 ranks by vectors alone, 1 by keywords alone.",
    )
    deadline_s: float = Field(2.0, gt=0, description="How long the keyword search may take, in seconds.")


class ThumbnailsConfig(Config):
    """Bounds of making and caching thumbnails."""

    cache_bytes: int = Field(32 * 2**20, ge=0, description="Memory of the cache of thumbnails, in bytes.")
    at_once: int = Field(
        2,
        gt=0,
        description="Images that are decoded at once for thumbnails, within images.max_pixels_in_flight.",
    )


class PageConfig(Config):
    """What the search page shows of a product."""

    attributes: tuple[str, ...] | None = Field(
        None,
        description="Attributes that a result shows below its title, in this order; by default the product's first "
        "three beside price and currency.",
    )
    currency: str | None = Field(
        None,
        pattern="^[A-Z]{3}$",
        description="Currency of the attribute `price`, as an ISO 4217 code such as EUR. A product's own attribute "
        "`currency` comes first.",
    )


NOT_ENCODERS = frozenset({"catalog", "milvus", "keyword", ENSEMBLE})
"""Names of other parts of the service, which the readiness check and search results report beside encoders."""


class ServedModels(Config):
    """`user_config` of the gateway and of the repair: the encoders. Changed in place."""

    models: tuple[str, ...] = Field(
        description="Names of the encoders; each is a Serve application of that name."
    )

    @field_validator("models")
    @classmethod
    def _check_names(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for name in NOT_ENCODERS.intersection(models):
            raise ValueError(
                f"an encoder may not be called {name!r}: the readiness check has a part of that name"
            )
        return models


class EnsembleSettings(Config):
    """`user_config` of the ensemble: its members. Changed in place."""

    weights: dict[str, float] = Field(
        description="Members and their default weights; weight 0: only on request."
    )
    fusion: Fusion = Field(
        "rrf", description="How result lists are fused, unless the request sets it: rrf or weighted."
    )


class EnsembleArgs(Config):
    """Arguments of the ensemble's application."""

    milvus: MilvusConfig = Field(description="Where the collections are.")
    member_deadline_s: float = Field(3.0, gt=0, description="How long one member may take, in seconds.")


class GatewayArgs(Config):
    """Arguments of the gateway's application."""

    catalog: CatalogConfig = Field(description="Where products and images are stored.")
    milvus: MilvusConfig = Field(description="Where the collections are.")
    images: ImageLimits = Field(ImageLimits(), description="Limits of an image file.")
    thumbnails: ThumbnailsConfig = Field(ThumbnailsConfig(), description="How thumbnails are made.")
    keyword_search: KeywordSearchConfig = Field(
        KeywordSearchConfig(), description="Keyword search in the text of products."
    )
    calibration: CalibrationConfig = Field(
        CalibrationConfig(), description="How false match rates become scores."
    )
    page: PageConfig = Field(PageConfig(), description="What the search page shows of a product.")
    authentication: AuthenticationConfig = Field(
        AuthenticationConfig(), description="API keys and their rate limits."
    )
    admission: AdmissionConfig = Field(
        AdmissionConfig(), description="How many requests are in flight, and for how long."
    )
    jobs: JobsConfig = Field(JobsConfig(), description="Bulk work of the jobs API.")
    fetch: FetchLimits = Field(FetchLimits(), description="Which URLs of images are fetched.")
    embedding_model: str | None = Field(
        None,
        description="The model of POST /vectorize, and of POST /v1/embeddings where the request names none; "
        "by default the first that accepts both text and images.",
    )
    rerank_deadline_s: float = Field(
        5.0,
        gt=0,
        description="How long re-ranking may take, in seconds, and no more than the time that the request has left. "
        "What is not scored by then keeps its place.",
    )
    max_body_bytes: int = Field(
        48 * 2**20,
        gt=0,
        description="Largest request body, in bytes; a call to an encoder carries at most 64 MiB.",
    )
    max_images_per_product: int = Field(MAX_IMAGES_PER_PRODUCT, gt=0, description="Most images of a product.")
    max_page: int = Field(2000, gt=0, description="Largest sum of offset and limit of a search.")
    encode_deadline_s: float = Field(30.0, gt=0, description="How long an encoder may take, in seconds.")
    index_wait_s: float = Field(
        10.0, gt=0, description="How long a write waits for its embeddings before it answers `pending`."
    )
    ready_coverage: float = Field(
        0.9, ge=0, le=1, description="Share of the images that a ready model must have indexed."
    )
    counts_ttl_s: float = Field(
        2.0,
        ge=0,
        description="How long counts of indexed images are cached, in seconds; 0: not at all. They are cached longer "
        "if counting takes more than a twentieth of this time.",
    )


class IngestCaptions(Config):
    """Captions of the catalog's images, made in the background, so that keyword search finds them."""

    model: str = Field(description="An encoder whose own args have `captions`.")
    batch_size: int = Field(
        8, gt=0, le=256, description="Images per call to it; each call's result is stored."
    )
    deadline_s: float = Field(120.0, gt=0, description="How long such a call may take, in seconds.")


class RepairArgs(Config):
    """Arguments of the repair's application, which closes gaps between catalog and collections."""

    catalog: CatalogConfig = Field(description="Where products and images are stored.")
    milvus: MilvusConfig = Field(description="Where the collections are.")
    interval_s: float = Field(
        2.0, gt=0, description="Pause between two questions to the ledger for work, in seconds."
    )
    full_pass_interval_s: float = Field(
        60.0,
        gt=0,
        description="Pause between two full passes, in seconds. They also look for lost collections and for obsolete "
        "rows of versions that do not serve.",
    )
    grace_s: float = Field(
        15.0, ge=0, description="Age at which an unfinished write counts as abandoned, in seconds."
    )
    batch_size: int = Field(64, gt=0, description="Images per call to an encoder.")
    encode_deadline_s: float = Field(30.0, gt=0, description="How long an encoder may take, in seconds.")
    file_grace_s: float = Field(
        86_400.0,
        ge=0,
        description="How long an image file is kept after the last product that names it is gone, in seconds. "
        "Within a day, a mistaken deletion is undone by restoring the database alone. `vitrine prune --files` "
        "does not wait.",
    )
    file_interval_s: float = Field(
        300.0,
        gt=0,
        description="Pause between two passes that remove image files, in seconds. A pass also lists a 256th of "
        "all files to find those that no product ever named, so each file is checked once in 256 passes.",
    )
    sample_interval_s: float = Field(
        30.0,
        gt=0,
        description="Pause between two samples of the ledger for the metrics of gap, quarantine and age of the "
        "index, in seconds. It grows if a sample takes more than a twentieth of it.",
    )
    captions: IngestCaptions | None = Field(
        None, description="Caption the images of the catalog; by default none are captioned."
    )


class MilvusLiteArgs(Config):
    """Arguments of the application that owns a Milvus Lite folder."""

    folder: str = Field(description="The folder of the database; created if missing.")
    address: str = Field(
        description="Where the owner listens: unix:/path/to.sock or http://127.0.0.1:port; others connect to it by "
        "the same `milvus.uri`."
    )

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        check_uri(address)
        return address
