"""Arguments and user configuration of all applications, as they stand in serve_config.yaml."""

from pydantic import Field

from catalog.database import MAX_IMAGES_PER_PRODUCT, CatalogConfig
from catalog.fetching.connections import FetchLimits
from core.calibration import CalibrationConfig
from core.config import Config
from core.fusion import Fusion
from core.job_config import BulkConfig, EvaluationConfig
from core.sources import ImportConfig
from milvus.config import MilvusConfig
from models.images import ImageLimits


class IngestCaptions(Config):
    """Which model captions the images of the catalog, in the background, so that words find them."""

    model: str = Field(description="An encoder whose own configuration asks for captions.")
    batch_size: int = Field(
        8, gt=0, le=256, description="Images per call to it; what a call has written is kept."
    )
    deadline_s: float = Field(120.0, gt=0, description="How long such a call may take, in seconds.")


class DoorConfig(Config):
    """The gateway's doors; every bound is per replica of the gateway."""

    admin_key_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="Lower-case hex sha256 of an admin key that is not in the database: the first key, and "
        "the way back in. Empty: none, and then the service must listen on loopback.",
    )
    keys_ttl_s: float = Field(
        2.0, ge=0, description="How long what the database says of keys is believed, in seconds."
    )
    requests_per_s: float = Field(
        50.0, gt=0, description="Requests per second that a key may send, unless the key says otherwise."
    )
    burst: int = Field(
        100, gt=0, description="Requests that a key may send at once, unless the key says otherwise."
    )
    max_in_flight: int = Field(
        64, gt=0, description="Requests in work at once; further ones are refused with 503 at once."
    )
    search_slowdown: float = Field(
        1.5,
        gt=1,
        description="How many times as long as one alone searches may take while there are more than can be "
        "answered: so many are in work at once as keep it, the others are refused with 503 at once.",
    )
    request_deadline_s: float = Field(
        30.0,
        gt=0,
        description="How long a request may take, its body included, in seconds; a caller may ask for less "
        "by the header X-Request-Timeout-Seconds.",
    )


class JobsConfig(Config):
    """Bulk work of the jobs API, which runs on Ray Jobs."""

    bulk: BulkConfig = Field(BulkConfig(), description="What a bulk job may take of the cluster.")
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(), description="How models are compared, and when a worse one is refused."
    )
    imports: ImportConfig = Field(ImportConfig(), description="What imports may read, and at what pace.")
    dashboard_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where Ray's dashboard, which takes jobs, answers; by default that of this cluster.",
    )
    deadline_s: float = Field(15.0, gt=0, description="How long Ray may take to answer, in seconds.")


class KeywordSearchConfig(Config):
    """Keyword search beside the search by vectors."""

    weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the words' own ranking when the ensemble is asked for words and the request "
        "does not say: 0 ranks by vectors alone, 1 by words alone.",
    )
    deadline_s: float = Field(2.0, gt=0, description="How long the keyword search may take, in seconds.")


class ThumbnailsConfig(Config):
    """Bounds of the making and keeping of thumbnails."""

    cache_bytes: int = Field(
        32 * 2**20, ge=0, description="Memory for thumbnails that were asked for lately, in bytes."
    )
    at_once: int = Field(
        2,
        gt=0,
        description="Images that are decoded at once for thumbnails, within images.max_pixels_in_flight.",
    )


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

    catalog: CatalogConfig = Field(description="Where products and images are kept.")
    milvus: MilvusConfig = Field(description="Where the collections are.")
    images: ImageLimits = Field(ImageLimits(), description="What images are taken.")
    thumbnails: ThumbnailsConfig = Field(ThumbnailsConfig(), description="How thumbnails are made.")
    keyword_search: KeywordSearchConfig = Field(
        KeywordSearchConfig(), description="How much the text of products counts."
    )
    calibration: CalibrationConfig = Field(
        CalibrationConfig(), description="How false match rates become scores."
    )
    door: DoorConfig = Field(DoorConfig(), description="Who is let in, how much at once and for how long.")
    jobs: JobsConfig = Field(JobsConfig(), description="How bulk work is started.")
    fetch: FetchLimits = Field(FetchLimits(), description="What URLs of images are fetched.")
    embedding_model: str | None = Field(
        None,
        description="The model of POST /vectorize, and of POST /v1/embeddings where the request names none; "
        "by default the first that takes both words and images.",
    )
    max_body_bytes: int = Field(
        48 * 2**20,
        gt=0,
        description="Largest request body, in bytes; a call to an encoder carries at most 64 MiB.",
    )
    max_images_per_product: int = Field(
        MAX_IMAGES_PER_PRODUCT, gt=0, description="Most images a product may have."
    )
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
        description="How long counts of indexed images are believed, in seconds: each counting reads the whole "
        "ledger. Longer, where counting takes above a twentieth of it; 0: not at all.",
    )


class RepairArgs(Config):
    """Arguments of the application that completes what is pending."""

    catalog: CatalogConfig = Field(description="Where products and images are kept.")
    milvus: MilvusConfig = Field(description="Where the collections are.")
    interval_s: float = Field(2.0, gt=0, description="Pause between two passes, in seconds.")
    grace_s: float = Field(
        15.0, ge=0, description="Age at which an unfinished write counts as abandoned, in seconds."
    )
    batch_size: int = Field(64, gt=0, description="Images per call to an encoder.")
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
        None, description="Caption the images of the catalog; if not set, none are written."
    )


class MilvusLiteArgs(Config):
    """Arguments of the application that owns a Milvus Lite folder."""

    folder: str = Field(description="The folder of the database; made when missing.")
    address: str = Field(description="Where the owner listens: unix:/path/to.sock or 127.0.0.1:port.")
