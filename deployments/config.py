"""Arguments and user configuration of the applications, as they stand in serve_config.yaml."""

from pydantic import Field

from catalog.config import MAX_IMAGES_PER_PRODUCT, CatalogConfig
from catalog.fetching.config import FetchLimits
from core.config import Config
from core.ensemble import Fusion
from core.null_samples import CalibrationConfig
from deployments.captions_config import IngestCaptions
from deployments.door_config import DoorConfig
from deployments.jobs_config import JobsConfig
from deployments.lexical_config import LexicalConfig
from deployments.thumbnails_config import ThumbnailsConfig
from milvus.config import MilvusConfig
from models.images import ImageLimits


class ServedModels(Config):
    """`user_config` of the gateway and of the repair: which encoders there are. Changed in place."""

    models: tuple[str, ...] = Field(
        description="Names of the encoders; each is a Serve application of that name."
    )


class EnsembleSettings(Config):
    """`user_config` of the ensemble: its members. Changed in place."""

    weights: dict[str, float] = Field(
        description="Members and their default weights; weight 0: only on request."
    )
    fusion: Fusion = Field("rrf", description="How lists are fused unless the request says: rrf or weighted.")


class EnsembleArgs(Config):
    """Arguments of the ensemble's application."""

    milvus: MilvusConfig = Field(description="Where the collections are.")
    member_deadline_s: float = Field(3.0, gt=0, description="How long one member may take, in seconds.")


class GatewayArgs(Config):
    """Arguments of the gateway's application."""

    catalog: CatalogConfig = Field(description="Where products and pictures are kept.")
    milvus: MilvusConfig = Field(description="Where the collections are.")
    images: ImageLimits = Field(ImageLimits(), description="What pictures are taken.")
    thumbnails: ThumbnailsConfig = Field(ThumbnailsConfig(), description="How thumbnails are made.")
    lexical: LexicalConfig = Field(LexicalConfig(), description="How much the words of products count.")
    calibration: CalibrationConfig = Field(
        CalibrationConfig(), description="How false match rates become scores."
    )
    door: DoorConfig = Field(DoorConfig(), description="Who is let in, how much at once and for how long.")
    jobs: JobsConfig = Field(JobsConfig(), description="How bulk work is started.")
    fetch: FetchLimits = Field(FetchLimits(), description="What URLs of pictures are fetched.")
    embedding_model: str | None = Field(
        None,
        description="The model of POST /vectorize, and of POST /v1/embeddings where the request names none; "
        "by default the first that takes both words and pictures.",
    )
    max_body_bytes: int = Field(
        48 * 2**20,
        gt=0,
        description="Largest request body, in bytes; a call to an encoder carries at most 64 MiB.",
    )
    max_images_per_product: int = Field(
        MAX_IMAGES_PER_PRODUCT, gt=0, description="Most pictures a product may have."
    )
    max_page: int = Field(2000, gt=0, description="Largest sum of offset and limit of a search.")
    encode_deadline_s: float = Field(30.0, gt=0, description="How long an encoder may take, in seconds.")
    index_wait_s: float = Field(
        10.0, gt=0, description="How long a write waits for its embeddings before it answers `pending`."
    )
    ready_coverage: float = Field(
        0.9, ge=0, le=1, description="Share of the pictures that a ready model must have indexed."
    )
    counts_ttl_s: float = Field(
        2.0,
        ge=0,
        description="How long counts of indexed pictures are believed, in seconds: each counting reads the whole "
        "ledger. Longer, where counting takes above a twentieth of it; 0: not at all.",
    )


class RepairArgs(Config):
    """Arguments of the application that completes what is pending."""

    catalog: CatalogConfig = Field(description="Where products and pictures are kept.")
    milvus: MilvusConfig = Field(description="Where the collections are.")
    interval_s: float = Field(2.0, gt=0, description="Pause between two passes, in seconds.")
    grace_s: float = Field(
        15.0, ge=0, description="Age at which an unfinished write counts as abandoned, in seconds."
    )
    batch_size: int = Field(64, gt=0, description="Pictures per call to an encoder.")
    encode_deadline_s: float = Field(30.0, gt=0, description="How long an encoder may take, in seconds.")
    file_grace_s: float = Field(
        86_400.0,
        ge=0,
        description="How long an image file that no product names any more is kept, in seconds. A day leaves "
        "time to take a mistaken deletion back by restoring the database alone; `vitrine prune --files` waits "
        "for nothing.",
    )
    file_interval_s: float = Field(
        300.0,
        gt=0,
        description="Pause between two passes that remove image files, in seconds. Each pass also lists a 256th "
        "of all files for those that were never named, so every file is seen once in 256 pauses.",
    )
    sample_interval_s: float = Field(
        30.0,
        gt=0,
        description="Pause between two samples of the ledger for the metrics of gap, quarantine and age of the "
        "index, in seconds; longer, where a sample takes above a twentieth of it.",
    )
    captions: IngestCaptions | None = Field(
        None, description="Caption the pictures of the catalog; if not set, none are written."
    )


class MilvusLiteArgs(Config):
    """Arguments of the application that owns a Milvus Lite folder."""

    folder: str = Field(description="The folder of the database; made when missing.")
    address: str = Field(description="Where the owner listens: unix:/path/to.sock or 127.0.0.1:port.")
