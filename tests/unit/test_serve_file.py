"""The strict check of Serve configurations, and the two files that the repository ships."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ConfigError
from deployments.serve_doors import has_admin_key
from deployments.serve_file import read_serve_file

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "serve_config.demo.yaml"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_HOME", "/srv/vitrine")
    monkeypatch.setenv("VITRINE_WEIGHTS", "/srv/weights")
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://pictures")
    monkeypatch.setenv("VITRINE_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("VITRINE_ADMIN_KEY_SHA256", "0" * 64)


def test_the_demo_configuration_is_sound() -> None:
    names = [application.name for application in read_serve_file(DEMO).applications]
    assert names == ["milvus-lite", "openclip", "dinov2", "blip2", "ensemble", "repair", "gateway"]


def test_the_production_configuration_is_sound() -> None:
    config = read_serve_file(ROOT / "serve_config.yaml")
    encoders = {a.name: a for a in config.applications if a.import_path.endswith(":build_encoder")}
    assert encoders["openclip"].args["checkpoint"] == "ViT-H-14"
    assert encoders["openclip"].args["pretrained"] == "laion2b_s32b_b79k"
    assert encoders["dinov2"].args["checkpoint"] == "facebook/dinov2-large"
    assert encoders["blip2"].args["precision"] == "int8"
    for application in config.applications:
        for deployment in application.deployments:
            given = deployment.model_fields_set
            assert {"max_ongoing_requests", "max_queued_requests", "ray_actor_options"} <= given
            assert {"autoscaling_config", "num_replicas"} & given
    for encoder in encoders.values():
        assert encoder.deployments[0].ray_actor_options.num_gpus


def encoder(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in config["applications"] if a["name"] == "openclip")
    return found


def models_left_empty(config: dict[str, Any]) -> None:
    gateway = next(a for a in config["applications"] if a["name"] == "gateway")
    gateway["deployments"][0]["user_config"]["models"] = None


def settings_of_the_wrong_type(config: dict[str, Any]) -> None:
    encoder(config)["deployments"][0]["user_config"] = ["openclip"]


def no_builder(config: dict[str, Any]) -> None:
    encoder(config)["import_path"] = "deployments.app:DEPLOYMENTS"


def typo_in_deployment(config: dict[str, Any]) -> None:
    encoder(config)["deployments"][0]["max_ongoing_request"] = 5


def typo_in_autoscaling(config: dict[str, Any]) -> None:
    encoder(config)["deployments"][0]["autoscaling_config"] = {"min_replica": 1}


def typo_in_args(config: dict[str, Any]) -> None:
    encoder(config)["args"]["checkpoints"] = "x"


def typo_at_the_top(config: dict[str, Any]) -> None:
    config["http_option"] = {}


def wrong_type(config: dict[str, Any]) -> None:
    encoder(config)["deployments"][0]["max_ongoing_requests"] = "many"


def wrong_builder(config: dict[str, Any]) -> None:
    encoder(config)["import_path"] = "deployments.app:build_encodr"


def wrong_deployment(config: dict[str, Any]) -> None:
    encoder(config)["deployments"][0]["name"] = "Encodr"


def no_deployments(config: dict[str, Any]) -> None:
    del config["applications"][6]["deployments"]


def stray_user_config(config: dict[str, Any]) -> None:
    encoder(config)["deployments"][0]["user_config"] = {"models": []}


def other_name(config: dict[str, Any]) -> None:
    encoder(config)["args"]["name"] = "clip"


def unknown_member(config: dict[str, Any]) -> None:
    config["applications"][4]["deployments"][0]["user_config"]["weights"] = {"opnclip": 1.0}


def repair_args(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in config["applications"] if a["name"] == "repair")["args"]
    return found


def captions_by_nobody(config: dict[str, Any]) -> None:
    repair_args(config)["captions"] = {"model": "blip"}


def captions_by_a_model_that_writes_none(config: dict[str, Any]) -> None:
    repair_args(config)["captions"] = {"model": "dinov2"}


def open_to_the_network(config: dict[str, Any]) -> None:
    config["http_options"]["host"] = "0.0.0.0"


def listening_everywhere_by_default(config: dict[str, Any]) -> None:
    del config["http_options"]


def no_hash(config: dict[str, Any]) -> None:
    config["applications"][6]["args"]["door"] = {"admin_key_sha256": "secret"}


def serve_refuses_first(config: dict[str, Any]) -> None:
    config["applications"][6]["deployments"][0]["max_ongoing_requests"] = 100


def serve_times_out_first(config: dict[str, Any]) -> None:
    config["http_options"]["request_timeout_s"] = 30


MISTAKES: dict[Callable[[dict[str, Any]], None], str] = {
    typo_in_deployment: "deployments[0].max_ongoing_request: unknown key; did you mean 'max_ongoing_requests'?",
    typo_in_autoscaling: "autoscaling_config.min_replica: unknown key; did you mean 'min_replicas'?",
    typo_in_args: "applications[1].args.checkpoints: Extra inputs are not permitted",
    typo_at_the_top: "http_option: unknown key; did you mean 'http_options'?",
    wrong_type: "max_ongoing_requests: Input should be a valid integer",
    wrong_builder: "applications[1].import_path:",
    wrong_deployment: "must hold one deployment, 'Encoder', and holds 'Encodr'",
    no_deployments: "applications[6].deployments: must hold one deployment, 'Gateway', and holds none",
    stray_user_config: "applications[1].deployments[0].user_config: Encoder takes none",
    other_name: "applications[1].args.name: must be 'openclip'",
    models_left_empty: "applications[6].deployments[0].user_config.models: Input should be a valid tuple",
    settings_of_the_wrong_type: "deployments.0.user_config: Input should be a valid dictionary",
    no_builder: "applications[1].import_path: expected a builder",
    unknown_member: "there is no encoder 'opnclip'; did you mean 'openclip'?",
    captions_by_nobody: "args.captions.model: there is no encoder 'blip'; encoders: blip2, dinov2, openclip",
    captions_by_a_model_that_writes_none: "args.captions.model: encoder 'dinov2' writes no captions",
    open_to_the_network: "args.door.admin_key_sha256: needed to listen on 0.0.0.0",
    listening_everywhere_by_default: "args.door.admin_key_sha256: needed to listen on 0.0.0.0",
    no_hash: "args.door.admin_key_sha256: String should match pattern",
    serve_refuses_first: "deployments[0].max_ongoing_requests: must be at least 128",
    serve_times_out_first: "http_options.request_timeout_s: must be above the 30 s",
}


@pytest.mark.parametrize("spoil", MISTAKES, ids=lambda spoil: spoil.__name__)
def test_a_mistake_is_named_with_its_place(spoil: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    config = yaml.safe_load(DEMO.read_text())
    spoil(config)
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError) as caught:
        read_serve_file(file)
    assert MISTAKES[spoil] in caught.value.message


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRINE_HOME")
    with pytest.raises(ConfigError, match="VITRINE_HOME"):
        read_serve_file(DEMO)


def test_a_host_of_the_command_line_is_checked_like_the_files() -> None:
    with pytest.raises(ConfigError, match=r"needed to listen on 10\.0\.0\.1"):
        read_serve_file(DEMO, host="10.0.0.1")
    for host in ("localhost", "127.0.0.2", "::1"):
        assert read_serve_file(DEMO, host=host).http_options.host == host


def test_an_admin_key_opens_the_network(tmp_path: Path) -> None:
    config = yaml.safe_load(DEMO.read_text())
    config["applications"][6]["args"]["door"] = {"admin_key_sha256": "a" * 64}
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    assert has_admin_key(read_serve_file(file, host="0.0.0.0"))
    assert not has_admin_key(read_serve_file(DEMO))
