"""The strict check of Serve configurations, and the two files that the repository ships."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from core.errors import ConfigError
from deployments.config_check.applications import has_admin_key
from deployments.config_check.serve_file import check_serve_file, read_serve_file
from models.config import EncoderConfig
from vitrine.cli.configuration import catalog_of

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


def test_an_encoder_of_ones_own_is_known_by_its_builder(tmp_path: Path) -> None:
    own = {
        "name": "own",
        "route_prefix": None,
        "import_path": "tests.support.obedient_encoder:build_encoder",
        "args": {"name": "own", "notes": "notes"},
    }
    ensemble = {
        "name": "ensemble",
        "route_prefix": "/ensemble",
        "import_path": "deployments.app:build_ensemble",
        "args": {"milvus": {"uri": "http://127.0.0.1:1"}},
        "deployments": [{"name": "Ensemble", "user_config": {"weights": {"own": 1}}}],
    }
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump({"applications": [own, ensemble]}))
    assert check_serve_file(file) == []
    file.write_text(yaml.safe_dump({"applications": [own | {"name": "other"}, ensemble]}))
    assert "this must be the application's name, 'other'" in str(check_serve_file(file)[0])


def edited(text: str, *edits: tuple[str, str]) -> str:
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


ENCODER = "      checkpoint: ${VITRINE_WEIGHTS}/openclip\n"
GATEWAY = (
    "  - name: gateway\n    route_prefix: /\n    import_path: deployments.app:build_gateway\n    args:\n"
)
MISTAKES: dict[str, tuple[tuple[str, str], str, str]] = {
    # name: (text, its replacement), the line that is reported, "field (application): message"
    "unknown key at the top": (
        ("http_options:", "http_option:"),
        "http_option:",
        "http_option: there is no such key; did you mean 'http_options'?",
    ),
    "unknown key of a deployment": (
        ("        max_ongoing_requests: 64", "        max_ongoing_request: 64"),
        "max_ongoing_request:",
        "applications[1].deployments[0].max_ongoing_request (openclip): there is no such key; did you mean "
        "'max_ongoing_requests'?",
    ),
    "unknown key of autoscaling": (
        ("          min_replicas: 1", "          min_replica: 1"),
        "min_replica:",
        "applications[1].deployments[0].autoscaling_config.min_replica (openclip): there is no such key; did you",
    ),
    "unknown key of a request router": (
        (
            "        max_ongoing_requests: 64",
            "        max_ongoing_requests: 64\n        request_router_config: {request_router_clas: a:b}",
        ),
        "request_router_config:",
        "applications[1].deployments[0].request_router_config.request_router_clas (openclip): there is no such key; "
        "did you mean 'request_router_class'?",
    ),
    "unknown key of gang scheduling": (
        (
            "        max_ongoing_requests: 64",
            "        max_ongoing_requests: 64\n        gang_scheduling_config: {gang_size: 2, gang_sise: 2}",
        ),
        "gang_scheduling_config:",
        "applications[1].deployments[0].gang_scheduling_config.gang_sise (openclip): there is no such key; did you",
    ),
    "unknown key of args": (
        (ENCODER, ENCODER + "      checkpoints: x\n"),
        "checkpoints:",
        "applications[1].args.checkpoints (openclip): there is no such key; did you mean 'checkpoint'?",
    ),
    "unknown key far within": (
        (GATEWAY, GATEWAY + "      jobs: {bulk: {\n        actors: 3}}\n"),
        "actors:",
        "applications[6].args.jobs.bulk.actors (gateway): there is no such key; did you mean 'min_actors'?",
    ),
    "wrong type": (
        ("        max_ongoing_requests: 64", "        max_ongoing_requests: many"),
        ": many",
        "applications[1].deployments[0].max_ongoing_requests (openclip): Input should be a valid integer",
    ),
    "out of bounds": (
        (ENCODER, ENCODER + "      decode_threads: 0\n"),
        "decode_threads:",
        "applications[1].args.decode_threads (openclip): Input should be greater than or equal to 1",
    ),
    "no such choice": (
        ("precision: int8", "precision: int7"),
        "int7",
        "applications[3].args.precision (blip2): Input should be 'fp32', 'bf16', 'fp16' or 'int8'",
    ),
    "missing in an anchor that two use": (
        ("        blobs_url: ${VITRINE_HOME}/blobs\n", ""),
        "catalog: &catalog",
        "applications[5].args.catalog.blobs_url (repair): Field required",
    ),
    "wrong in an anchor that three use": (
        ("uri: unix:", "uri: unx:"),
        "milvus: &milvus",
        "applications[4].args.milvus (ensemble): unx:/srv/vitrine/milvus.sock: expected unix:/path",
    ),
    "settings that exclude each other": (
        ("      family: dinov2\n", "      family: dinov2\n      pretrained: laion2b\n"),
        "args:",
        "applications[2].args (dinov2): pretrained is for family openclip",
    ),
    "unknown database": (
        ("database_url: sqlite:///${VITRINE_HOME}/c", "database_url: mysql://u:secret@db/"),
        "mysql",
        "applications[5].args.catalog.database_url (repair): database_url names 'mysql'; the catalog needs",
    ),
    "no sha256": (
        (GATEWAY, GATEWAY + "      authentication:\n        admin_key_sha256: secret\n"),
        ": secret",
        "applications[6].args.authentication.admin_key_sha256 (gateway): String should match pattern",
    ),
    "empty list of models": (
        ("models: *models", "models:"),
        "models:\n",
        "applications[6].deployments[0].user_config.models (gateway): Input should be a valid tuple",
    ),
    "user_config of the wrong type": (
        ("          models: &models [", "          - [x]\n          - &models ["),
        "user_config:",
        "applications[5].deployments[0].user_config (repair): Input should be a valid dictionary",
    ),
    "user_config of an encoder": (
        ("      - name: Encoder\n", "      - name: Encoder\n        user_config: {models: []}\n"),
        "user_config:",
        "applications[1].deployments[0].user_config (openclip): Encoder takes no user_config",
    ),
    "unknown builder": (
        ("app:build_encoder", "app:build_encodr"),
        "build_encodr",
        "applications[1].import_path (openclip): this is not a builder: module 'deployments.app' has no "
        "attribute 'build_encodr'; did you mean 'deployments.app:build_encoder'?",
    ),
    "not a builder": (
        ("app:build_encoder", "app:DEPLOYMENTS"),
        "DEPLOYMENTS",
        "applications[1].import_path (openclip): this is not a builder: ",
    ),
    "unknown deployment": (
        ("      - name: Encoder", "      - name: Encodr"),
        "deployments:",
        "applications[1].deployments (openclip): this must be one deployment with the name 'Encoder'",
    ),
    "duplicate key": (
        ("      family: dinov2\n", "      family: blip2\n      family: dinov2\n"),
        "family: dinov2",
        "cannot be read as YAML: 'family' is in line 69 too; only the last would count",
    ),
    "other name than the application": (
        ("      name: openclip", "      name: clip"),
        "name: clip\n",
        "applications[1].args.name (openclip): this must be the application's name, 'openclip'",
    ),
    "unknown model of the gateway": (
        ("&models [openclip,", "&models [opnclip,"),
        "opnclip",
        "applications[5].deployments[0].user_config.models (repair): no encoder is called 'opnclip'; did you "
        "mean 'openclip'? (encoders: blip2, dinov2, openclip)",
    ),
    "unknown member of the ensemble": (
        ("            openclip: 1.0", "            opnclip: 1.0"),
        "weights:",
        "applications[4].deployments[0].user_config.weights (ensemble): no encoder is called 'opnclip'; did",
    ),
    "captions by no encoder": (
        ("      milvus: *milvus\n    d", "      milvus: *milvus\n      captions: {model: blip}\n    d"),
        "captions:",
        "applications[5].args.captions.model (repair): no encoder is called 'blip'; did you mean 'blip2'?",
    ),
    "captions by an encoder that writes none": (
        ("      milvus: *milvus\n    d", "      milvus: *milvus\n      captions: {model: dinov2}\n    d"),
        "captions:",
        "applications[5].args.captions.model (repair): encoder 'dinov2' writes no captions; its args need",
    ),
    "an encoder with the name of another readiness check": (
        ("&models [openclip,", "&models [catalog, openclip,"),
        "catalog",
        "applications[5].deployments[0].user_config.models (repair): an encoder may not be called 'catalog'",
    ),
    "an address that Milvus Lite cannot listen on": (
        ("address: unix:${VITRINE_HOME}/milvus.sock", "address: 127.0.0.1:19530"),
        "address:",
        "applications[0].args.address (milvus-lite): 127.0.0.1:19530: expected unix:/path, http://host:port",
    ),
    "another address than that of Milvus Lite": (
        ("address: unix:${VITRINE_HOME}/milvus.sock", "address: unix:${VITRINE_HOME}/lite.sock"),
        "uri:",
        "applications[4].args.milvus.uri (ensemble): nothing listens on unix:/srv/vitrine/milvus.sock: the "
        "application of Milvus Lite has unix:/srv/vitrine/lite.sock",
    ),
    "other indexed attributes than the gateway": (
        (
            "      milvus: *milvus\n    d",
            "      milvus:\n        uri: unix:${VITRINE_HOME}/milvus.sock\n"
            "        indexed_attributes: [{name: color, type: string}]\n    d",
        ),
        "indexed_attributes:",
        "applications[5].args.milvus.indexed_attributes (repair): this must be as in the gateway's args",
    ),
    "no key on a network": (
        ("host: 127.0.0.1", "host: 0.0.0.0"),
        "args:",
        "applications[6].args.authentication.admin_key_sha256 (gateway): an admin key is needed to listen on 0.0",
    ),
    "no key and Serve's own host": (
        ("http_options:\n  host: 127.0.0.1\n  port: 8000\n", ""),
        "args:",
        "applications[6].args.authentication.admin_key_sha256 (gateway): an admin key is needed to listen on 0.0",
    ),
    "Serve refuses first": (
        ("max_ongoing_requests: 512", "max_ongoing_requests: 100"),
        "100",
        "applications[6].deployments[0].max_ongoing_requests (gateway): this must be at least 128",
    ),
    "Serve gives up first": (
        ("  port: 8000\n", "  port: 8000\n  request_timeout_s: 30\n"),
        "request_timeout_s:",
        "http_options.request_timeout_s: this must exceed the gateway's admission.request_deadline_s, 30 s",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_with_its_file_line_field_and_application(name: str, tmp_path: Path) -> None:
    edit, marked, expected = MISTAKES[name]
    text = edited(DEMO.read_text(), edit)
    file = tmp_path / "serve_config.yaml"
    file.write_text(text)
    (mistake,) = check_serve_file(file)
    where = f"{file}:{mistake.line}: "
    assert str(mistake).startswith(where + expected)
    assert marked in text.splitlines(keepends=True)[(mistake.line or 0) - 1]
    assert "secret" not in str(mistake)
    with pytest.raises(ConfigError) as caught:
        read_serve_file(file)
    assert caught.value.message == str(mistake)


def test_a_key_that_an_earlier_release_had_is_named_with_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EncoderConfig, "renamed", {"decoders": "decode_threads"})
    file = tmp_path / "serve_config.yaml"
    file.write_text(edited(DEMO.read_text(), (ENCODER, ENCODER + "      decoders: 2\n")))
    (mistake,) = check_serve_file(file)
    assert (mistake.application, mistake.message) == ("openclip", "'decoders' is now called 'decode_threads'")
    with pytest.raises(ValidationError, match="'decoders' is now called 'decode_threads'"):
        EncoderConfig.model_validate({"name": "openclip", "decoders": 2})
    assert EncoderConfig.model_validate(
        {"name": "a", "family": "fake", "checkpoint": "", "decode_threads": 2}
    )


def spoilt(spoil: Callable[[dict[str, Any]], None], folder: Path) -> Path:
    config = yaml.safe_load(DEMO.read_text())
    spoil(config)
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_mistakes_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    text = edited(DEMO.read_text(), ("family: dinov2", "family: dinov3"), ("http_options:", "http_option:"))
    file.write_text(text)
    first, second = check_serve_file(file)
    lines = text.splitlines()
    assert first.line == lines.index("http_option:") + 1
    assert second.line == lines.index("      family: dinov3") + 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1\nb: 2", 2, "cannot be read as YAML: "),
        ("- 1", None, "Input should be a valid dictionary"),
        ("", None, "Input should be a valid dictionary"),
        ("applications: 1", 1, "Input should be a valid list"),
        ("applications: [1]", 1, "Input should be a valid dictionary"),
        ("applications: [{name: a}]", 1, "Field required"),
        ("applications: {name: a}", 1, "Input should be a valid list"),
        ("applications: [{a: 1, a: 2}]\n", 1, "cannot be read as YAML: 'a' is in line 1 too"),
        ("? [a]\n: 1", 1, "cannot be read as YAML: found unhashable key"),
        ("a: &a {b: 1, c: 1}\nd: &d {<<: *a, b: 2}\ne: {<<: *d, b: 3}", None, "Field required"),
        ("a: \0", 1, "cannot be read as YAML: special characters are not allowed"),
    ],
)
def test_a_file_that_holds_no_configuration_is_reported(
    text: str, line: int | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text)
    mistake = check_serve_file(file)[0]
    assert mistake.line == line
    assert mistake.message.startswith(message)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 1000, "it is nested too deeply"),
        ("a: &a\n  b: *a\n", "Circular reference detected"),
        ("a: 2026-13-01\n", "month must be in 1..12"),
    ],
)
def test_a_file_that_yaml_cannot_hold_is_one_mistake(content: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(content)
    (mistake,) = check_serve_file(file)
    assert mistake.message == f"cannot be read as YAML: {reason}"


@pytest.mark.parametrize("check", [check_serve_file, read_serve_file, catalog_of])
def test_a_file_in_another_encoding_is_named_with_the_line(
    check: Callable[[Path], object], tmp_path: Path
) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_bytes("applications:\n  # größer\n".encode("latin-1"))
    expected = f"{file}:2: cannot be read as YAML: special characters are not allowed; is the file UTF-8?"
    if check is check_serve_file:
        assert [str(each) for each in check_serve_file(file)] == [expected]
    else:
        with pytest.raises(ConfigError) as caught:
            check(file)
        assert caught.value.message == expected


def test_without_its_variables_a_file_is_checked_as_far_as_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VITRINE_HOME", "VITRINE_WEIGHTS"):
        monkeypatch.delenv(name)
    mistakes = check_serve_file(DEMO)
    assert {each.message.split("}")[0] for each in mistakes} == {"${VITRINE_HOME", "${VITRINE_WEIGHTS"}
    assert all(each.unset for each in mistakes)
    file = tmp_path / "serve_config.yaml"
    file.write_text(edited(DEMO.read_text(), (ENCODER, ENCODER + "      limits: {max_pixels: -1}\n")))
    (mistake,) = [each for each in check_serve_file(file) if not each.unset]
    assert mistake.field == "applications[1].args.limits.max_pixels"


def test_an_application_without_its_deployment_is_reported(tmp_path: Path) -> None:
    (mistake,) = check_serve_file(
        spoilt(lambda config: config["applications"][6].pop("deployments"), tmp_path)
    )
    assert (mistake.field, mistake.application) == ("applications[6].deployments", "gateway")
    assert mistake.message == "this must be one deployment with the name 'Gateway'"


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ("unix:/x/milvus.sock", "unix:///x/milvus.sock"),
        ("unix:///x/milvus.sock", "unix:/x/milvus.sock"),
        ("http://127.0.0.1:19530", "http://127.0.0.1:19530/"),
    ],
)
def test_an_address_of_milvus_lite_may_be_written_in_more_than_one_way(
    address: str, uri: str, tmp_path: Path
) -> None:
    lines = ("address: unix:${VITRINE_HOME}/milvus.sock", "uri: unix:${VITRINE_HOME}/milvus.sock")
    file = tmp_path / "serve_config.yaml"
    file.write_text(edited(DEMO.read_text(), (lines[0], f"address: {address}"), (lines[1], f"uri: {uri}")))
    assert check_serve_file(file) == []


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRINE_HOME")
    with pytest.raises(ConfigError, match="VITRINE_HOME"):
        read_serve_file(DEMO)
    with pytest.raises(ConfigError, match=r"refers to \$\{VITRINE_HOME\}, which is not set"):
        catalog_of(DEMO)


def test_a_host_of_the_command_line_is_checked_like_the_files() -> None:
    with pytest.raises(ConfigError, match=r"needed to listen on 10\.0\.0\.1"):
        read_serve_file(DEMO, host="10.0.0.1")
    for host in ("localhost", "127.0.0.2", "::1"):
        assert read_serve_file(DEMO, host=host).http_options.host == host


def test_http_options_that_are_no_map_are_a_mistake_whatever_the_host(tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text("http_options: 5\n")
    with pytest.raises(ConfigError, match="http_options: Input should be a valid dictionary"):
        read_serve_file(file, host="127.0.0.1")


def test_an_admin_key_opens_the_network(tmp_path: Path) -> None:
    config = yaml.safe_load(DEMO.read_text())
    config["applications"][6]["args"]["authentication"] = {"admin_key_sha256": "a" * 64}
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
