"""Running service in an upgrade: its configuration, the change of a version in it, and what replicas serve."""

import asyncio
import difflib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import yaml

from core.errors import ConfigError, Unavailable
from core.jobs import VERSION_FIELDS
from core.types import EncoderInfo
from jobs.runner.settings import deploy, running_settings, serve_details

logger = logging.getLogger(__name__)

_ANSWER_S = 10.0
_CONFIG_FIELDS = ("proxy_location", "http_options", "grpc_options", "target_capacity")
"""Fields of a configuration beside its applications, by the names in Serve's own report."""


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration before and after; equal when nothing is to be changed."""

    model: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def __bool__(self) -> bool:
        return self.before != self.after

    @property
    def diff(self) -> str:
        """The encoder's arguments as a unified diff, for those who keep the configuration in version control."""
        name = f"applications: {self.model}: args"
        old, new = (_yaml(arguments(each, self.model)).splitlines() for each in (self.before, self.after))
        return "\n".join(difflib.unified_diff(old, new, name, name, lineterm=""))

    @property
    def rayservice_patch(self) -> str:
        """A merge patch of a KubeRay RayService, for `kubectl patch rayservice NAME --type merge --patch-file`."""
        return _yaml({"spec": {"serveConfigV2": _yaml(self.after)}})


def change(config: Mapping[str, Any], model: str, version: Mapping[str, Any]) -> Change:
    """Give the encoder the fields of another version; all else stays.

    Raises:
        ConfigError: the configuration has no such encoder.
    """
    current = arguments(config, model)
    kept = {name: value for name, value in current.items() if name not in VERSION_FIELDS}
    # Fields that both versions state keep their places, so that the difference shows only what differs.
    changed = {name: version.get(name, value) for name, value in current.items() if name in {*kept, *version}}
    changed |= {name: value for name, value in version.items() if name not in changed}
    applications = [
        {**each, "args": changed} if _is_encoder(each, model) else each for each in config["applications"]
    ]
    return Change(model, config, {**config, "applications": applications})


def arguments(config: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Read the arguments of an encoder as the configuration states them.

    Raises:
        ConfigError: the configuration has no such encoder.
    """
    for application in config["applications"]:
        if _is_encoder(application, model):
            return dict(application.get("args") or {})
    raise ConfigError(f"the configuration has no encoder {model!r}")


def _is_encoder(application: Mapping[str, Any], model: str) -> bool:
    builder = str(application.get("import_path")).rpartition(":")[2]
    return builder == "build_encoder" and application.get("name") == model


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that a configuration within a patch can be read."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """Status of an application by Serve's name for it, Serve's message, and when it was deployed last."""

    status: str
    message: str
    deployed_at: float = 0.0

    @property
    def failed(self) -> bool:
        """True where the replicas do not start."""
        return self.status == "DEPLOY_FAILED"


class Serving(Protocol):
    """A running service. Calls block, and raise Unavailable when it does not answer."""

    def config(self) -> dict[str, Any]:
        """Read the whole configuration that runs, references to the environment unresolved."""
        ...

    def apply(self, config: Mapping[str, Any]) -> None:
        """Run this configuration; unchanged applications are left alone."""
        ...

    def rollout(self, model: str) -> RolloutStatus:
        """Read the status of an encoder's application."""
        ...

    def describe(self, model: str) -> EncoderInfo:
        """Ask some replica of an encoder which version it serves."""
        ...


def served_collection(serving: Serving, model: str) -> str | None:
    """Ask some replica which collection it searches; None where no replica answers."""
    try:
        return serving.describe(model).collection
    except Unavailable:
        return None


class RunningServe:
    """Implements `Serving` over Serve's REST API, as `serve deploy` does, and the encoder's handle."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def config(self) -> dict[str, Any]:
        """Read the whole configuration that runs.

        Raises:
            Unavailable: the dashboard does not answer.
            ConfigError: an application was started otherwise than by a configuration.
        """
        details = serve_details()
        applications = details.get("applications", {})
        strange = sorted(name for name, each in applications.items() if not each.get("deployed_app_config"))
        if strange:
            raise ConfigError(
                f"application {strange[0]!r} was not started from a Serve configuration, so none can be changed"
            )
        config = {name: details[name] for name in _CONFIG_FIELDS if details.get(name) is not None}
        return config | {"applications": [each["deployed_app_config"] for each in applications.values()]}

    def apply(self, config: Mapping[str, Any]) -> None:
        """Hand the configuration to Serve.

        Raises:
            Unavailable: the dashboard does not answer, or refuses it.
        """
        deploy(config)

    def rollout(self, model: str) -> RolloutStatus:
        """Read the status of an encoder's application; Unavailable where there is none."""
        found = serve_details().get("applications", {}).get(model)
        if found is None:
            raise Unavailable(f"Serve runs no application {model!r}")
        reasons = [str(found.get("message") or "")]
        reasons += [str(each.get("message") or "") for each in found.get("deployments", {}).values()]
        message = " ".join(reason for reason in reasons if reason)
        return RolloutStatus(str(found["status"]), message, float(found.get("last_deployed_time_s") or 0.0))

    def describe(self, model: str) -> EncoderInfo:
        """Ask some replica of an encoder which version it serves."""
        if self._loop is None:
            # One for all calls: in throughput mode a handle's router lives and dies with the loop it began in.
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="handles", daemon=True).start()
        info = asyncio.run_coroutine_threadsafe(_ask(model), self._loop).result()
        return replace(info, index_schema=running_settings().milvus.index_schema)


async def _ask(model: str) -> EncoderInfo:
    # The one call of a job to a deployment: only the replicas know what they serve.
    from ray import serve

    try:
        async with asyncio.timeout(_ANSWER_S):
            handle = await asyncio.to_thread(serve.get_deployment_handle, "Encoder", app_name=model)
            info: EncoderInfo = await handle.describe.remote()
    except Exception as error:  # a handle fails in many ways, and all of them pass
        logger.debug("no answer from %s", model, exc_info=True)
        raise Unavailable(f"no replica of {model!r} says what it serves: {error}") from error
    return info
