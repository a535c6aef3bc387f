"""The strict check of Serve configurations, and the two files that the repository ships."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ConfigError
from deployments.config_check.serve_file import catalog_of, check_serve_file, has_admin_key, read_serve_file

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "demo" / "serve_config.demo.yaml"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_HOME", "/srv/vitrine")
    monkeypatch.setenv("VITRINE_WEIGHTS", "/srv/weights")
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://images")
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


def needed_but_left_out(config: dict[str, Any]) -> None:
    del config["applications"][6]["args"]["catalog"]["blobs_url"]


def a_choice_misspelt(config: dict[str, Any]) -> None:
    encoder(config)["args"]["precision"] = "bf61"


def beyond_a_bound(config: dict[str, Any]) -> None:
    encoder(config)["args"]["max_batch_size"] = 0


def beyond_a_limit_of_images(config: dict[str, Any]) -> None:
    encoder(config)["args"]["limits"] = {"max_pixels": -1}


def settings_that_exclude_each_other(config: dict[str, Any]) -> None:
    config["applications"][2]["args"]["pretrained"] = "laion2b"


def an_address_deep_within(config: dict[str, Any]) -> None:
    config["applications"][4]["args"]["milvus"] = {"uri": "localhost:19530"}


def a_database_nobody_knows(config: dict[str, Any]) -> None:
    config["applications"][6]["args"]["catalog"]["database_url"] = "mysql://vitrine:secret@db/vitrine"


MISTAKES: dict[Callable[[dict[str, Any]], None], tuple[str, str, str]] = {
    typo_in_deployment: (
        "applications[1].deployments[0].max_ongoing_request",
        "there is no such key",
        "did you mean 'max_ongoing_requests'? Keys here: autoscaling_config, ",
    ),
    typo_in_autoscaling: (
        "applications[1].deployments[0].autoscaling_config.min_replica",
        "there is no such key",
        "did you mean 'min_replicas'?",
    ),
    typo_in_args: ("applications[1].args.checkpoints", "there is no such key", "did you mean 'checkpoint'?"),
    typo_at_the_top: ("http_option", "there is no such key", "did you mean 'http_options'?"),
    wrong_type: (
        "applications[1].deployments[0].max_ongoing_requests",
        "is 'many', text",
        "whole number, more than 0 (Maximum number of requests",
    ),
    wrong_builder: (
        "applications[1].import_path",
        "cannot be imported: ",
        "did you mean 'deployments.app:build_encoder'? one of deployments.app:build_encoder, ",
    ),
    wrong_deployment: (
        "applications[1].deployments",
        "holds 'Encodr'",
        "one deployment, with the name 'Encoder'",
    ),
    no_deployments: ("applications[6].deployments", "holds none", "one deployment, with the name 'Gateway'"),
    stray_user_config: (
        "applications[1].deployments[0].user_config",
        "Encoder takes none",
        "no `user_config`",
    ),
    other_name: (
        "applications[1].args.name",
        "is 'clip', and the application is called 'openclip'",
        "'openclip': both names must be the same",
    ),
    models_left_empty: (
        "applications[6].deployments[0].user_config.models",
        "is nothing",
        "list of text (Names of the encoders; each is a Serve application of that name)",
    ),
    settings_of_the_wrong_type: (
        "applications[1].deployments[0].user_config",
        "is ['openclip'], a list",
        "map",
    ),
    no_builder: (
        "applications[1].import_path",
        "deployments.app:DEPLOYMENTS is no builder",
        "a function of one",
    ),
    unknown_member: (
        "applications[4].deployments[0].user_config.weights",
        "there is no encoder 'opnclip'",
        "did you mean 'openclip'? Encoders here: blip2, dinov2, openclip.",
    ),
    captions_by_nobody: (
        "applications[5].args.captions.model",
        "there is no encoder 'blip'",
        "did you mean 'blip2'? Encoders here: blip2, dinov2, openclip.",
    ),
    captions_by_a_model_that_writes_none: (
        "applications[5].args.captions.model",
        "encoder 'dinov2' writes no captions",
        "give that encoder's args `captions: {}`",
    ),
    open_to_the_network: (
        "applications[6].args.door.admin_key_sha256",
        "is needed to listen on 0.0.0.0",
        "the sha256 of a key, or 127.0.0.1 as http_options.host",
    ),
    listening_everywhere_by_default: (
        "applications[6].args.door.admin_key_sha256",
        "is needed to listen on 0.0.0.0",
        "the sha256 of a key",
    ),
    no_hash: (
        "applications[6].args.door.admin_key_sha256",
        "is text that does not fit",
        "text, matching `^([0-9a-f]{64})?$` (Lower-case hex sha256 of an admin key",
    ),
    serve_refuses_first: (
        "applications[6].deployments[0].max_ongoing_requests",
        "is 100, so that Serve would refuse requests before the gateway does",
        "at least 128",
    ),
    serve_times_out_first: (
        "http_options.request_timeout_s",
        "is 30, so that Serve would give up before the gateway does",
        "more than the 30 s",
    ),
    needed_but_left_out: (
        "applications[5].args.catalog.blobs_url",
        "is needed, and is not there",
        "text, no shorter than 1 (Where image files lie",
    ),
    a_choice_misspelt: (
        "applications[1].args.precision",
        "is 'bf61', text",
        "did you mean 'bf16'? `fp32`, `bf16`, `fp16`, `int8` (Number format of the weights)",
    ),
    beyond_a_bound: (
        "applications[1].args.max_batch_size",
        "is 0, a whole number",
        "whole number, at least 1, at most 1024 (Most inputs of one batch)",
    ),
    settings_that_exclude_each_other: (
        "applications[2].args",
        "pretrained is for family openclip; dinov2 takes a directory or a hub id",
        "",
    ),
    an_address_deep_within: (
        "applications[4].args.milvus",
        "localhost:19530: expected unix:/path, http://host:port or https://host:port",
        "",
    ),
    a_database_nobody_knows: (
        "applications[5].args.catalog",
        "database_url names 'mysql'; the catalog needs sqlite or postgresql",
        "",
    ),
}


@pytest.mark.parametrize("spoil", MISTAKES, ids=lambda spoil: spoil.__name__)
def test_a_mistake_is_told_with_its_place_what_is_wrong_and_what_would_be_right(
    spoil: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    file = spoilt(spoil, tmp_path)
    field, wrong, right = MISTAKES[spoil]
    (mistake,) = check_serve_file(file)
    assert mistake.field == field
    assert mistake.wrong.startswith(wrong)
    told = str(mistake)
    assert told.startswith(f"{file}:{mistake.line}: ")
    assert f"right: {right}" in told if right else "right:" not in told
    if field.startswith("applications["):
        applications = yaml.safe_load(file.read_text())["applications"]
        assert mistake.application == applications[int(field[len("applications[") :][0])]["name"]
    with pytest.raises(ConfigError) as caught:
        read_serve_file(file)
    assert caught.value.message == told


def test_no_mistake_shows_a_secret(tmp_path: Path) -> None:
    for spoil in (no_hash, a_database_nobody_knows):
        for mistake in check_serve_file(spoilt(spoil, tmp_path)):
            assert "secret" not in mistake.wrong + mistake.right


def spoilt(spoil: Callable[[dict[str, Any]], None], folder: Path) -> Path:
    config = yaml.safe_load(DEMO.read_text())
    spoil(config)
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_several_mistakes_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    text = (
        DEMO.read_text().replace("family: dinov2", "family: dinov3").replace("http_options:", "http_option:")
    )
    file.write_text(text)
    first, second = check_serve_file(file)
    lines = text.splitlines()
    assert (first.line, second.line) == (
        lines.index("http_option:") + 1,
        lines.index("      family: dinov3") + 1,
    )
    assert (second.application, second.nearest) == ("dinov2", "dinov2")


def test_a_mistake_in_an_anchor_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    text = DEMO.read_text().replace("uri: unix:", "uri: unx:")
    file.write_text(text)
    assert text.count("uri: unx:") == 1
    (mistake,) = check_serve_file(file)
    assert "expected unix:/path" in mistake.wrong


def test_a_key_that_stands_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(
        DEMO.read_text().replace("      family: dinov2\n", "      family: dinov2\n      family: dinov2\n")
    )
    (mistake,) = check_serve_file(file)
    assert mistake.field == "applications[2].args.family"
    assert "stands here twice, in lines " in mistake.wrong


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        ("a: [1\nb: 2", 2, "is no YAML: "),
        ("- 1", None, "is [1], a list"),
        ("", None, "is nothing"),
    ],
)
def test_a_file_that_holds_no_configuration_is_told(
    text: str, line: int | None, wrong: str, tmp_path: Path
) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text)
    (mistake,) = check_serve_file(file)
    assert mistake.line == line
    assert mistake.wrong.startswith(wrong)


def test_without_its_variables_a_file_is_checked_as_far_as_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VITRINE_HOME", "VITRINE_WEIGHTS"):
        monkeypatch.delenv(name)
    mistakes = check_serve_file(DEMO)
    assert {each.wrong.split("}")[0] for each in mistakes} == {
        "refers to ${VITRINE_HOME",
        "refers to ${VITRINE_WEIGHTS",
    }
    assert all(each.unset for each in mistakes)
    both = [each for each in check_serve_file(spoilt(beyond_a_limit_of_images, tmp_path)) if not each.unset]
    assert [each.field for each in both] == ["applications[1].args.limits.max_pixels"]


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


def test_where_the_catalog_is_can_be_read_without_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VITRINE_MILVUS_URI")
    assert catalog_of(ROOT / "serve_config.yaml").blobs_url == "s3://images"
    with pytest.raises(ConfigError, match="names no catalog"):
        catalog_of(spoilt(lambda config: config["applications"].pop(), tmp_path))
