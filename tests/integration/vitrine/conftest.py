"""A service with two encoders, and a folder with an image file of each color."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documented_service import image
from tests.support.vitrine_stand import COLORS, Stand, vitrine_stand
from vitrine.cli import jobs as job_commands
from vitrine.client import Vitrine
from vitrine.transport import Retries


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(job_commands, "POLL_S", 0.02)
    monkeypatch.setenv("COLUMNS", "200")
    with vitrine_stand(tmp_path) as opened:
        yield opened


@pytest.fixture
def shop(stand: Stand) -> Iterator[Vitrine]:
    with Vitrine(stand.url, retries=Retries(count=0)) as opened:
        yield opened


@pytest.fixture
def stocked(shop: Vitrine, tmp_path: Path) -> Vitrine:
    """A shop with a shirt of each color."""
    for number, (name, color) in enumerate(COLORS.items()):
        file = tmp_path / f"{name}.png"
        file.write_bytes(image(color))
        attributes = {"color": name, "price": 10 * number}
        shop.put_product(name, title=f"{name} shirt", attributes=attributes, images=[file])
    return shop
