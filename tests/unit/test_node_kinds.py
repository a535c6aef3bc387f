"""One machine can be every kind of node that a configuration asks for."""

from pathlib import Path

import yaml

from cli.node_kinds import node_kinds

ROOT = Path(__file__).parents[2]


def test_one_machine_offers_every_kind_of_node_that_production_asks_for() -> None:
    content = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    assert node_kinds(content) == {
        "openclip_node": 1.0,
        "dinov2_node": 1.0,
        "blip2_node": 1.0,
        "service_node": 1.0,
    }


def test_a_configuration_may_ask_for_none() -> None:
    assert node_kinds({"applications": [{"name": "a"}, {"name": "b", "deployments": [{"name": "B"}]}]}) == {}
