"""The builders that serve_config.yaml names: here, and only here, classes become deployments.

Serve validates the arguments of a builder by its annotation at run time, so annotations must be real.
Each builder imports its own replica's class, so that a replica loads only what it runs: imports are
most of the time that a start takes.
"""

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
    from deployments.encoder import EncoderReplica

    return serve.deployment(EncoderReplica, name="Encoder").bind(args)


def build_ensemble(args: EnsembleArgs) -> Application:
    """The ensemble combiner."""
    from deployments.ensemble import EnsembleReplica

    return serve.deployment(EnsembleReplica, name="Ensemble").bind(args)


def build_gateway(args: GatewayArgs) -> Application:
    """The FastAPI ingress."""
    from deployments.gateway import GatewayReplica

    return serve.deployment(serve.ingress()(GatewayReplica), name="Gateway").bind(args)


def build_repair(args: RepairArgs) -> Application:
    """The background repair."""
    from deployments.repair import RepairReplica

    return serve.deployment(RepairReplica, name="Repair").bind(args)


def build_milvus_lite(args: MilvusLiteArgs) -> Application:
    """The one owner of a Milvus Lite folder."""
    from deployments.lite import MilvusLiteReplica

    return serve.deployment(MilvusLiteReplica, name="MilvusLite").bind(args)


USER_CONFIGS: dict[str, type[Config] | None] = {
    "Encoder": None,
    "Ensemble": EnsembleSettings,
    "Gateway": ServedModels,
    "Repair": ServedModels,
    "MilvusLite": None,
}
"""The deployments by name, and what the `user_config` of each must be."""
