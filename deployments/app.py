"""Builders of the applications in serve_config.yaml; the only module that applies `serve.deployment`.

Serve reads the annotation of a builder at run time to validate its arguments. Each builder imports its own
replica class, so that a replica loads only what it runs: imports take most of its start.
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
    """Build one encoder; the application must have the encoder's name."""
    from deployments.replicas.encoder import EncoderReplica

    return serve.deployment(EncoderReplica, name="Encoder").bind(args)


def build_ensemble(args: EnsembleArgs) -> Application:
    """Build the ensemble combiner."""
    from deployments.replicas.ensemble import EnsembleReplica

    return serve.deployment(EnsembleReplica, name="Ensemble").bind(args)


def build_gateway(args: GatewayArgs) -> Application:
    """Build the gateway, the FastAPI ingress."""
    from deployments.replicas.gateway import GatewayReplica

    return serve.deployment(serve.ingress()(GatewayReplica), name="Gateway").bind(args)


def build_repair(args: RepairArgs) -> Application:
    """Build the background repair."""
    from deployments.replicas.repair import RepairReplica

    return serve.deployment(RepairReplica, name="Repair").bind(args)


def build_milvus_lite(args: MilvusLiteArgs) -> Application:
    """Build the owner of a Milvus Lite folder."""
    from deployments.replicas.milvus_lite import MilvusLiteReplica

    return serve.deployment(MilvusLiteReplica, name="MilvusLite").bind(args)


DEPLOYMENTS: dict[Callable[..., Application], tuple[str, type[Config] | None]] = {
    build_encoder: ("Encoder", None),
    build_ensemble: ("Ensemble", EnsembleSettings),
    build_gateway: ("Gateway", ServedModels),
    build_repair: ("Repair", ServedModels),
    build_milvus_lite: ("MilvusLite", None),
}
"""The name of each builder's deployment, and the model of its `user_config`."""
