"""Program that becomes a Milvus standalone server, run by the Python that has the package `milvus`.

python milvus_server.py BINARIES DATA PROXY_PORT FIRST_OTHER_PORT

The package unpacks its binaries once into BINARIES, one process at a time. This process turns into the
server, so whoever started it can end it by its id, and nothing else is left.
"""

import fcntl
import os
import sys
from pathlib import Path

from milvus import MilvusServerConfig, _initialize_data_files


def main(binaries: str, data: str, proxy_port: str, first_port: str) -> None:
    """Write the configuration, with the ports from the first on for its parts, and execute the server."""
    with open(f"{binaries}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _initialize_data_files(binaries)
    config = MilvusServerConfig(data_dir=data)
    names = [name for name in config.configurable_items if name.endswith("_port")]
    *ports, metrics_port, etcd_port, etcd_peer_port = range(int(first_port), int(first_port) + len(names) + 3)
    config.update(**dict(zip(names, ports, strict=True)))
    config.update(proxy_port=int(proxy_port))
    config.resolve()
    etcd = Path(data) / "configs" / "etcd.yaml"
    etcd.write_text(_etcd_configuration(Path(data) / "etcd", etcd_port, etcd_peer_port))
    os.chdir(data)
    binary = str(Path(binaries) / "bin" / "milvus")
    settings = {
        "DEPLOY_MODE": "STANDALONE",
        "ETCD_CONFIG_PATH": str(etcd),
        "METRICS_PORT": str(metrics_port),
        "MILVUS_RUN_DIR": str(Path(data) / "run"),
        "LD_LIBRARY_PATH": str(Path(binaries) / "bin"),
        # As in k8s/milvus: what was written lately is searched exactly, not by a coarse index.
        "QUERYNODE_SEGCORE_INTERIMINDEX_ENABLEINDEX": "false",
    }
    os.execve(binary, [binary, "run", "standalone"], {**os.environ, **settings})


def _etcd_configuration(data: Path, port: int, peer_port: int) -> str:
    """The embedded etcd takes its default ports, whatever the template says, unless it has its own file."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return f"""
name: default
data-dir: {data}
listen-client-urls: {client}
advertise-client-urls: {client}
listen-peer-urls: {peer}
initial-advertise-peer-urls: {peer}
initial-cluster: default={peer}
"""


if __name__ == "__main__":
    main(*sys.argv[1:])
