"""Program that runs an import, to be killed: `python -m tests.support.import_driver`.

python -m tests.support.import_driver FOLDER SETTINGS_JSON ARGS_JSON
"""

import json
import sys
from pathlib import Path
from typing import Any

from catalog.fetching.connections import FetchLimits
from catalog.jobs import SqlJobs
from catalog.opening import Catalog, open_catalog
from core.config import BulkConfig
from core.errors import VitrineError
from core.jobs import ImportArgs
from core.sources import ImportConfig
from jobs.imports.run import import_products
from jobs.runner.context import JobContext, take_up
from jobs.runner.settings import Settings
from milvus.config import MilvusConfig
from tests.support.catalog_fixtures import sqlite_in

LEASE_S = 1.5
IMPORTS = ImportConfig(batch_products=5, backoff_s=0.01, max_backoff_s=0.1, attempts=3)


def settings(folder: Path, fetch: FetchLimits, imports: ImportConfig = IMPORTS) -> Settings:
    return Settings(
        catalog=sqlite_in(folder),
        milvus=MilvusConfig(uri="http://127.0.0.1:1"),
        bulk=BulkConfig(),
        encoders={},
        fetch=fetch,
        imports=imports,
    )


def run_import(
    catalog: Catalog, known: Settings, args: dict[str, Any], at_shell: bool = True
) -> dict[str, Any]:
    checked = ImportArgs.model_validate(args)
    kept = checked.model_dump(mode="json", exclude_defaults=True)
    with take_up(SqlJobs(catalog.engine, lease_s=LEASE_S), "import", kept) as run:
        result = import_products(JobContext(run, known, catalog, at_shell), checked)
        run.result = result
    return result


def main() -> None:
    known = settings(Path(sys.argv[1]), FetchLimits.model_validate_json(sys.argv[2]))
    catalog = open_catalog(known.catalog)
    try:
        result = run_import(catalog, known, json.loads(sys.argv[3]))
        sys.stdout.write(json.dumps(result))
    except VitrineError as error:
        raise SystemExit(error.message) from None


if __name__ == "__main__":
    main()
