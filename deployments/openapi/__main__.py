"""`python -m deployments.openapi docs/api.md` writes the generated parts of the page anew."""

import sys
from pathlib import Path

from deployments.ingress import describe
from deployments.openapi.page import fill

for name in sys.argv[1:]:
    page = Path(name)
    page.write_text(fill(page.read_text(), describe()))
