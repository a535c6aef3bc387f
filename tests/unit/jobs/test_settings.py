"""What jobs read of a Serve configuration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.config import BulkConfig
from core.errors import ConfigError, InvalidInput
from jobs.build.build import shard_work
from jobs.runner.settings import EncoderSettings, settings_of, settings_of_file
from models import fake
from models.config import EncoderConfig
from models.encoder import load_encoder

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    "VITRINE_DATABASE_URL": "sqlite:///c.sqlite",
    "VITRINE_BLOBS_URL": "blobs",
    "VITRINE_MILVUS_URI": "http://milvus:19530",
    "VITRINE_HOME": "/home/vitrine",
    "VITRINE_WEIGHTS": "/weights",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("file", ["serve_config.yaml", "demo/serve_config.demo.yaml"])
def test_the_configurations_of_the_house_say_what_jobs_need(file: str) -> None:
    settings = settings_of_file(ROOT / file)
    assert {"openclip", "dinov2", "blip2"} <= set(settings.encoders)
    assert settings.bulk.max_actors >= 1


@pytest.mark.parametrize(
    ("file", "encoding"), [("serve_config.yaml", "JSON"), ("demo/serve_config.demo.yaml", "TEXT")]
)
def test_jobs_write_their_lines_as_the_service_does(file: str, encoding: str) -> None:
    assert settings_of_file(ROOT / file).log_encoding == encoding


def test_the_ensemble_is_read_as_leniently_as_it_reads_itself() -> None:
    gateway = {
        "import_path": "deployments.app:build_gateway",
        "args": {
            "catalog": {"database_url": "sqlite:///c", "blobs_url": "b"},
            "milvus": {"uri": "http://milvus:19530"},
        },
    }
    ensemble = {
        "name": "ensemble",
        "import_path": "deployments.app:build_ensemble",
        "deployments": [{"name": "Ensemble", "user_config": {"weights": {"first": "0.5", "second": 1}}}],
    }
    found = settings_of([gateway, ensemble]).ensemble
    assert found is not None
    assert found.weights == {"first": 0.5, "second": 1.0}


def test_an_actor_takes_what_a_replica_takes() -> None:
    encoder = settings_of_file(ROOT / "serve_config.yaml").encoder("openclip", {})
    assert (encoder.num_cpus, encoder.num_gpus) == (4, 1)


@pytest.mark.parametrize(
    ("gpus", "bulk", "actors"),
    [
        (1, {}, 3),
        (0.5, {}, 3),
        (0, {}, 0),
        (0, {"decode_actors": 2}, 2),
        (1, {"decode_actors": 0}, 0),
        (1, {"decode_actors": 40}, 40),
        (1, {"cpus_per_actor": 16}, 15),
        (1, {"cpus_per_actor": 16, "max_actors": 2}, 30),
        (1, {"cpus_per_actor": 16, "cpus_per_decode_actor": 5}, 3),
        (1, {"cpus_per_actor": 1}, 0),
        (1, {"cpus_per_actor": 0}, 0),
    ],
)
def test_a_model_with_a_gpu_has_processes_that_decode_on_the_cpus_that_it_leaves(
    gpus: float, bulk: dict[str, Any], actors: int
) -> None:
    encoder = EncoderSettings(EncoderConfig(name="fake", family="fake"), num_cpus=4, num_gpus=gpus)
    assert encoder.decode_actors(BulkConfig(**bulk)) == actors


def test_what_is_decoded_on_a_gpu_is_read_by_a_process_of_its_own_also_where_no_cpu_is_left() -> None:
    config = EncoderConfig(name="fake", family="fake", decode_on_gpu=True)
    encoder = EncoderSettings(config, num_cpus=1, num_gpus=1)
    assert encoder.decode_actors(BulkConfig(max_actors=2)) == 2
    assert replace(encoder, num_cpus=4).decode_actors(BulkConfig()) == 3
    assert encoder.decode_actors(BulkConfig(decode_actors=0)) == 0


@pytest.mark.parametrize(("cpus", "threads"), [(None, 4), (0, 1), (0.5, 1), (2, 2), (16, 16)])
def test_the_cpus_of_an_actor_that_holds_the_model_decode(cpus: float | None, threads: int) -> None:
    settings = replace(
        settings_of_file(ROOT / "serve_config.yaml"), bulk=BulkConfig(decode_actors=0, cpus_per_actor=cpus)
    )
    encoder = settings.encoder("openclip", {})
    info = fake.load(EncoderConfig(name="fake", family="fake")).info
    work = shard_work(settings, encoder, info, 1000, load_encoder, None)
    assert work.encoder == encoder.config.model_copy(update={"decode_threads": threads})


@pytest.mark.parametrize(("missing", "compiled"), [(0, False), (512, False), (513, True)])
def test_a_model_is_compiled_for_more_than_a_shard_alone(missing: int, compiled: bool) -> None:
    settings = settings_of_file(ROOT / "serve_config.yaml")
    encoder = settings.encoder("openclip", {})
    encoder = replace(encoder, config=encoder.config.model_copy(update={"compile": True}))
    info = fake.load(EncoderConfig(name="fake", family="fake")).info
    work = shard_work(settings, encoder, info, missing, load_encoder, None)
    assert work.encoder.compile == compiled


def test_a_candidate_differs_in_what_it_names() -> None:
    settings = settings_of_file(ROOT / "demo/serve_config.demo.yaml")
    candidate = settings.encoder("dinov2", {"checkpoint": "other", "pooling": "mean"})
    assert (candidate.config.checkpoint, candidate.config.pooling) == ("other", "mean")
    assert candidate.config.threads == settings.encoders["dinov2"].config.threads


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [("none", {}, "there is no model 'none'; models: blip2"), ("dinov2", {"precision": "fp8"}, "precision")],
)
def test_a_candidate_that_cannot_be_is_refused(model: str, changes: dict[str, str], message: str) -> None:
    settings = settings_of_file(ROOT / "demo/serve_config.demo.yaml")
    with pytest.raises(InvalidInput, match=message):
        settings.encoder(model, changes)


@pytest.mark.parametrize(
    ("applications", "message"),
    [
        ([], "no gateway"),
        ([{"import_path": "deployments.app:build_gateway", "args": {}}], "catalog|valid"),
        (
            [
                {
                    "import_path": "deployments.app:build_gateway",
                    "args": {
                        "catalog": {"database_url": "sqlite:///c", "blobs_url": "b"},
                        "milvus": {"uri": "http://milvus:19530"},
                        "jobs": {"bulk": {"actors": 3}},
                    },
                }
            ],
            "actors",
        ),
    ],
)
def test_a_configuration_without_what_jobs_need_is_refused(
    applications: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(applications)


def test_a_variable_that_is_not_set_is_named_as_it_is_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRINE_DATABASE_URL", raising=False)
    with pytest.raises(ConfigError) as caught:
        settings_of_file(ROOT / "serve_config.yaml")
    assert "${VITRINE_DATABASE_URL}, which is not set" in caught.value.message
    assert "Value error" not in caught.value.message
