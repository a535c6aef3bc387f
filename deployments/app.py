"""The builders that serve_config.yaml names: here, and only here, classes become deployments.

Serve validates the arguments of a builder by its annotation at run time, so annotations must be real.
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
from deployments.encoder import EncoderReplica
from deployments.ensemble import EnsembleReplica
from deployments.gateway import GatewayReplica
from deployments.lite import MilvusLiteReplica
from deployments.repair import RepairReplica
from models.config import EncoderConfig


def build_encoder(args: EncoderConfig) -> Application:
    """One encoder; the application must carry the encoder's name."""
    return serve.deployment(EncoderReplica, name="Encoder").bind(args)


def build_ensemble(args: EnsembleArgs) -> Application:
    """The ensemble combiner."""
    return serve.deployment(EnsembleReplica, name="Ensemble").bind(args)


def build_gateway(args: GatewayArgs) -> Application:
    """The FastAPI ingress."""
    return serve.deployment(serve.ingress()(GatewayReplica), name="Gateway").bind(args)


def build_repair(args: RepairArgs) -> Application:
    """The background repair."""
    return serve.deployment(RepairReplica, name="Repair").bind(args)


def build_milvus_lite(args: MilvusLiteArgs) -> Application:
    """The one owner of a Milvus Lite folder."""
    return serve.deployment(MilvusLiteReplica, name="MilvusLite").bind(args)


USER_CONFIGS: dict[str, type[Config] | None] = {
    "Encoder": None,
    "Ensemble": EnsembleSettings,
    "Gateway": ServedModels,
    "Repair": ServedModels,
    "MilvusLite": None,
}
"""The deployments by name, and what the `user_config` of each must be."""
