"""The builders that serve_config.yaml names: here, and only here, classes become deployments.

Serve validates the arguments of a builder by its annotation at run time, so annotations must be real.
Each builder imports its own replica's class, so that a replica loads only what it runs: imports are
most of the time that a start takes.
"""

from collections.abc import Callable

from ray import serve
from ray.serve import Application

from core.config import Config
from deployments.config import (
    EnsembleArgs,
    EnsembleSettings,
    GatewayArgs,
    MilvusLiteArgs,
    RepairArgs,
    ServedModels,
)
from models.config import EncoderConfig


def build_encoder(args: EncoderConfig) -> Application:
    """One encoder; the application must carry the encoder's name."""
    from deployments.replicas.encoder import EncoderReplica

    return serve.deployment(EncoderReplica, name="Encoder").bind(args)


def build_ensemble(args: EnsembleArgs) -> Application:
    """The ensemble combiner."""
    from deployments.replicas.ensemble import EnsembleReplica

    return serve.deployment(EnsembleReplica, name="Ensemble").bind(args)


def build_gateway(args: GatewayArgs) -> Application:
    """The FastAPI ingress."""
    from deployments.replicas.gateway import GatewayReplica

    return serve.deployment(serve.ingress()(GatewayReplica), name="Gateway").bind(args)


def build_repair(args: RepairArgs) -> Application:
    """The background repair."""
    from deployments.replicas.repair import RepairReplica

    return serve.deployment(RepairReplica, name="Repair").bind(args)


def build_milvus_lite(args: MilvusLiteArgs) -> Application:
    """The one owner of a Milvus Lite folder."""
    from deployments.replicas.milvus_lite import MilvusLiteReplica

    return serve.deployment(MilvusLiteReplica, name="MilvusLite").bind(args)


DEPLOYMENTS: dict[Callable[..., Application], tuple[str, type[Config] | None]] = {
    build_encoder: ("Encoder", None),
    build_ensemble: ("Ensemble", EnsembleSettings),
    build_gateway: ("Gateway", ServedModels),
    build_repair: ("Repair", ServedModels),
    build_milvus_lite: ("MilvusLite", None),
}
"""The deployment that each builder makes, and what its `user_config` must be."""
