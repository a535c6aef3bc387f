"""`vitrine backup`, `backups` and `restore` from a shell, on the demo's configuration."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from catalog.opening import open_catalog
from tests.support.upgrade_stage import image
from vitrine.cli.configuration import catalog_of
from vitrine.cli.main import app
from vitrine.cli.service import Exit

DEMO = Path(__file__).parents[3] / "demo" / "serve_config.demo.yaml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_backup_is_made_listed_and_brought_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, place = tmp_path / "home", str(tmp_path / "backups")
    monkeypatch.setenv("VITRINE_HOME", str(home))
    catalog = open_catalog(catalog_of(DEMO))
    for name in ("dress", "hat"):
        catalog.products.put(name, "", "", {}, [image(name)])
    made = run("backup", str(DEMO), place)
    assert made.exit_code == Exit.OK, made.output
    assert "2 copied" in made.stdout
    (snapshot,) = json.loads(run("backups", place, "--json").stdout)
    assert run("backups", place).stdout.split()[-4:] == [snapshot["id"], "sqlite", "2", "2"]
    again = json.loads(run("backup", str(DEMO), place, "--json").stdout)
    assert (again["images"]["copied"], again["images"]["present"]) == (0, 2)

    catalog.close()
    shutil.rmtree(home)
    back = run("restore", str(DEMO), place, "--snapshot", snapshot["id"])
    assert back.exit_code == Exit.OK, back.output
    catalog = open_catalog(catalog_of(DEMO))
    assert [each.product_id for each in catalog.products.page(10)] == ["dress", "hat"]
    catalog.close()


def test_a_backup_that_lacks_an_image_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_HOME", str(tmp_path))
    config = catalog_of(DEMO)
    catalog = open_catalog(config)
    catalog.products.put("dress", "", "", {}, [image("dress")])
    catalog.close()
    next(path for path in Path(config.blobs_url).rglob("*") if path.is_file()).unlink()
    made = run("backup", str(DEMO), str(tmp_path / "backups"))
    assert made.exit_code == Exit.REFUSED
    assert "1 image files are missing, such as " in made.stderr
