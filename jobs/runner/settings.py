"""Settings of a job, from a Serve configuration: a file, or the running one by Ray's dashboard."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from catalog.database import MAX_IMAGES_PER_PRODUCT, CatalogConfig
from catalog.fetching.connections import FetchLimits
from core.config import BulkConfig, EvaluationConfig
from core.errors import ConfigError, InvalidInput, Unavailable
from core.jobs import VERSION_FIELDS, EnsembleArgs
from core.sources import ImportConfig
from milvus.config import MilvusConfig
from models.config import EncoderConfig
from models.images import ImageLimits

_ANSWER_S = 30.0


def serve_details() -> dict[str, Any]:
    """Read Serve's details of its applications, on the cluster of RAY_ADDRESS or on this machine.

    Raises:
        Unavailable: the dashboard does not answer.
    """
    try:
        details: dict[str, Any] = _client().get_serve_details()
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"the running service cannot be read: {error}") from error
    return details


def deploy(config: Mapping[str, Any]) -> None:
    """Deploy this configuration to Serve.

    Raises:
        Unavailable: the dashboard does not answer, or refuses it.
    """
    try:
        _client().deploy_applications(dict(config))
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"Serve refuses the configuration: {error}") from error


def _client() -> Any:
    # Imported here, since most jobs never need it. Created for each call: the dashboard may move.
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
    from ray.dashboard.utils import get_address_for_submission_client

    class Client(ServeSubmissionClient):  # type: ignore[misc]
        """Client with a timeout; Ray's own waits forever."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": _ANSWER_S, **options})

    return Client(get_address_for_submission_client(None))


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """A configured encoder, with the resources of one replica."""

    config: EncoderConfig
    num_cpus: float
    num_gpus: float
    stated: Mapping[str, Any] = field(default_factory=dict)
    """Arguments as they stand in the Serve configuration, with references to the environment."""
    node_kind: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of a replica, which choose its kind of node."""

    @property
    def version(self) -> dict[str, Any]:
        """Stated arguments that define the version of the model."""
        return {name: self.stated[name] for name in VERSION_FIELDS if name in self.stated}

    def resources(self, bulk: BulkConfig) -> dict[str, Any]:
        """Return the resources that Ray reserves for one copy in a bulk job, as options of an actor."""
        cpus, gpus = bulk.cpus_per_actor, bulk.gpus_per_actor
        return {
            "num_cpus": self.num_cpus if cpus is None else cpus,
            "num_gpus": self.num_gpus if gpus is None else gpus,
            "resources": dict(self.node_kind),
        }

    def decode_actors(self, bulk: BulkConfig) -> int:
        """Return how many processes decode for the models of a job; 0: the models' own processes do."""
        if bulk.decode_actors is not None:
            return bulk.decode_actors
        asked = self.resources(bulk)
        # Without a GPU the model takes all the CPUs that decoding leaves, so nothing is won by another process.
        if not asked["num_gpus"]:
            return 0
        # What is decoded on the GPU is read by another process than the model's.
        least = int(self.config.decode_on_gpu)
        return max(least, int((asked["num_cpus"] - 1) / bulk.cpus_per_decode_actor)) * bulk.max_actors

    def decode_threads(self, bulk: BulkConfig) -> int:
        """Return how many threads decode in an actor that also holds the model."""
        cpus = bulk.cpus_per_actor
        return self.config.decode_threads if cpus is None else max(1, round(cpus))


class _Jobs(BaseModel):
    bulk: BulkConfig = BulkConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    imports: ImportConfig = ImportConfig()


class _Gateway(BaseModel):
    """Arguments of the gateway that jobs need; it checks the others itself."""

    catalog: CatalogConfig
    milvus: MilvusConfig
    jobs: _Jobs = _Jobs()
    images: ImageLimits = ImageLimits()
    fetch: FetchLimits = FetchLimits()
    max_images_per_product: int = MAX_IMAGES_PER_PRODUCT


@dataclass(frozen=True, slots=True)
class Settings:
    """Parts of a Serve configuration that jobs need."""

    catalog: CatalogConfig
    milvus: MilvusConfig
    bulk: BulkConfig
    encoders: Mapping[str, EncoderSettings]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    ensemble: EnsembleArgs | None = None
    imports: ImportConfig = field(default_factory=ImportConfig)
    images: ImageLimits = field(default_factory=ImageLimits)
    fetch: FetchLimits = field(default_factory=FetchLimits)
    max_images_per_product: int = MAX_IMAGES_PER_PRODUCT
    log_encoding: str = "TEXT"

    def encoder(self, name: str, changes: Mapping[str, Any]) -> EncoderSettings:
        """Return the configured encoder with these fields changed.

        Raises:
            InvalidInput: there is no such encoder, or the changes do not fit it.
        """
        if name not in self.encoders:
            known = ", ".join(sorted(self.encoders)) or "none"
            raise InvalidInput(f"there is no model {name!r:.80}; models: {known}").at("model")
        found = self.encoders[name]
        try:
            config = EncoderConfig.model_validate(found.config.model_dump() | dict(changes))
        except ValidationError as error:
            raise InvalidInput(f"this candidate cannot be: {first_error(error)}").at("args") from None
        return replace(found, config=config, stated={**found.stated, **changes})


def settings_of_file(path: Path) -> Settings:
    """Read a Serve configuration file.

    Raises:
        ConfigError: it cannot be read, or lacks what jobs need.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        content = {}
    return settings_of(content.get("applications") or [], content.get("logging_config"))


def running_settings() -> Settings:
    """Read the configuration that Serve runs on the cluster of RAY_ADDRESS, or on this machine.

    Serve reports `${NAME}`, never a secret, so references to the environment are resolved here.

    Raises:
        Unavailable: the cluster's dashboard does not answer.
        ConfigError: Serve runs no gateway.
    """
    running = [found["deployed_app_config"] for found in serve_details().get("applications", {}).values()]
    return settings_of([each for each in running if each])


def settings_of(applications: Iterable[Mapping[str, Any]], log: Mapping[str, Any] | None = None) -> Settings:
    """Extract the settings of jobs from the applications of a Serve configuration.

    `log` is the logging configuration of applications without their own.

    Raises:
        ConfigError: there is no gateway, or the arguments of the gateway or of an encoder are wrong.
    """
    by_builder: dict[str, list[Mapping[str, Any]]] = {}
    for application in applications:
        builder = str(application.get("import_path")).rpartition(":")[2]
        by_builder.setdefault(builder, []).append(application)
    if "build_gateway" not in by_builder:
        raise ConfigError("the Serve configuration has no gateway, which names the catalog")
    gateway = by_builder["build_gateway"][0]
    try:
        stated = _Gateway.model_validate(gateway.get("args") or {})
        encoders = [_encoder(each) for each in by_builder.get("build_encoder", [])]
        parts = dict(stated)
        return Settings(
            **parts | dict(parts.pop("jobs")),
            encoders={each.config.name: each for each in encoders},
            ensemble=_ensemble(by_builder.get("build_ensemble", [])),
            log_encoding=(gateway.get("logging_config") or log or {}).get("encoding", "TEXT"),
        )
    except ValidationError as error:
        raise ConfigError(f"the Serve configuration is wrong: {first_error(error)}") from None


def _encoder(application: Mapping[str, Any]) -> EncoderSettings:
    deployments = application.get("deployments") or [{}]
    options = deployments[0].get("ray_actor_options") or {}
    return EncoderSettings(
        EncoderConfig.model_validate(application.get("args")),
        num_cpus=float(options.get("num_cpus", 1)),
        num_gpus=float(options.get("num_gpus", 0)),
        stated=application.get("args") or {},
        node_kind=options.get("resources") or {},
    )


def _ensemble(applications: Sequence[Mapping[str, Any]]) -> EnsembleArgs | None:
    for application in applications:
        deployments = application.get("deployments") or [{}]
        settings = deployments[0].get("user_config") or {}
        # Not strict, as in the ensemble itself: a number may be quoted.
        return EnsembleArgs.model_validate(settings | {"name": application.get("name")}, strict=False)
    return None


def first_error(error: ValidationError) -> str:
    """Return the first mistake as one sentence, with its field."""
    detail = error.errors(include_url=False)[0]
    message = detail["msg"].removeprefix("Value error, ")
    return f"{'.'.join(str(part) for part in detail['loc'])}: {message}".removeprefix(": ")
