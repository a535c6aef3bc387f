"""Ray's dashboard, which tells what Serve runs and takes other configurations; it has a time to answer in."""

from collections.abc import Mapping
from typing import Any

from core.errors import Unavailable

_ANSWER_S = 30.0


def serve_details() -> dict[str, Any]:
    """Read what Serve says of its applications, on the cluster of RAY_ADDRESS or on this machine.

    Raises:
        Unavailable: the dashboard does not answer.
    """
    try:
        details: dict[str, Any] = _client().get_serve_details()
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"the running service cannot be read: {error}") from error
    return details


def deploy(config: Mapping[str, Any]) -> None:
    """Have Serve run this configuration.

    Raises:
        Unavailable: the dashboard does not answer, or refuses it.
    """
    try:
        _client().deploy_applications(dict(config))
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"Serve does not take the configuration: {error}") from error


def _client() -> Any:
    # Imported here, for most jobs never ask; made anew for each call: the dashboard may have moved.
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
    from ray.dashboard.utils import get_address_for_submission_client

    class Client(ServeSubmissionClient):  # type: ignore[misc]
        """Waits for no answer forever, as the one of Ray does."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": _ANSWER_S, **options})

    return Client(get_address_for_submission_client(None))
