"""The one change of a Serve configuration that an upgrade makes: which version an encoder is."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from core.errors import ConfigError
from models.config import VERSION_FIELDS


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
    """Make the encoder the version that these of its fields say; all else stays as it is.

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
