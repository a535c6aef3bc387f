"""The replica that owns a Milvus Lite folder and serves it to all others."""

from core.errors import StoreUnavailable
from deployments.config import MilvusLiteArgs
from deployments.observability.telemetry import start_telemetry
from milvus.lite import LiteOwner


class MilvusLiteReplica:
    """Runs the owner in this process. When it dies, Serve starts another replica."""

    def __init__(self, args: MilvusLiteArgs) -> None:
        start_telemetry()
        self._owner = LiteOwner(args.folder, args.address)
        self._owner.start()

    def check_health(self) -> None:
        """Fail when the owner does not answer a call; Serve then replaces the replica."""
        if not self._owner.healthy():
            raise StoreUnavailable("Milvus Lite does not answer")

    def __del__(self) -> None:
        self._owner.stop()
