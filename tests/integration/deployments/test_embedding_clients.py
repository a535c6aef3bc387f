"""Clients of OpenAI, LiteLLM, LangChain, LlamaIndex and Infinity, by their packages, with their defaults."""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import embedding_clients
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no .venv-clients, which `make test` installs"
)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[list[float]]]]:
    """Vectors that each client returns; one process for all, as they take seconds to import."""
    folder = tmp_path_factory.mktemp("clients")
    with local_service(folder, {"both": LocalEncoder("both")}) as app, served(app) as url:
        # LiteLLM reads prices from the internet, without this.
        environment = {**os.environ, "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [PYTHON, embedding_clients.__file__, url],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", embedding_clients.CLIENTS)
def test_a_client_of_others_returns_our_vectors(embedded: dict[str, list[list[float]]], name: str) -> None:
    image = base64.b64decode(embedding_clients.IMAGE.partition(",")[2])
    expected = asyncio.run(LocalEncoder("both").encode([*embedding_clients.TEXTS, image])).vectors
    assert np.allclose(embedded[name], np.stack(expected), atol=1e-6)
