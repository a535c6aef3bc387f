"""Pages and the service agree on what a candidate is."""

import re
from pathlib import Path

from core.jobs import VERSION_FIELDS

UPGRADE = Path(__file__).parents[3] / "deployments" / "web" / "js" / "upgrade.js"


def test_the_page_offers_every_field_of_a_candidate() -> None:
    found = re.search(r"^const CANDIDATE = \[\n(.*?)^\];", UPGRADE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert tuple(re.findall(r'^ *\["(\w+)"', found[1], re.MULTILINE)) == VERSION_FIELDS
