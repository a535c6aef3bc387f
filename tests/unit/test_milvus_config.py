"""Addresses that cannot work are refused before anything serves."""

import subprocess
import sys

import pytest

import milvus
from core.errors import ConfigError
from milvus.config import MilvusConfig
from milvus.lite import LiteOwner


@pytest.mark.parametrize(
    "uri", ["unix:/tmp/m.sock", "http://milvus:19530", "https://host", "unix:///tmp/m.sock"]
)
def test_an_address_of_milvus_is_accepted(uri: str) -> None:
    assert MilvusConfig(uri=uri).uri == uri


@pytest.mark.parametrize(
    "uri", ["", "milvus.db", "unix:relative.sock", "ftp://host", "http://", f"unix:/{'x' * 107}"]
)
def test_an_address_that_cannot_work_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        MilvusConfig(uri=uri)
    with pytest.raises(ConfigError):
        LiteOwner("folder", uri)


def test_a_socket_path_beyond_the_kernel_is_explained() -> None:
    with pytest.raises(ConfigError, match="120 bytes, at most 107"):
        MilvusConfig(uri=f"unix:/{'x' * 119}")


def test_the_room_is_ours_and_imports_no_torch() -> None:
    assert milvus.__file__ is not None
    assert "site-packages" not in milvus.__file__
    code = "import sys, milvus.lite, milvus.store, milvus.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
