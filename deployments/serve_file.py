"""Reading serve_config.yaml strictly, and all that is wrong with it."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from catalog.config import CatalogConfig
from core.errors import ConfigError
from deployments.checking.applications import problems
from deployments.checking.lines import Lines
from deployments.checking.problem import Mistake, Problem, located


def read_serve_file(path: Path, host: str | None = None) -> ServeDeploySchema:
    """Read and check a Serve configuration: every key known, every value of its type, arguments too.

    References to the environment are followed, so what they name must be set. `host` takes the place of
    the file's, where it is given.

    Raises:
        ConfigError: all that is wrong, each with its place and what would be right.
    """
    mistakes = check_serve_file(path, host)
    if mistakes:
        raise ConfigError("\n".join(map(str, mistakes)))
    return ServeDeploySchema.model_validate(_content(path, host))


def check_serve_file(path: Path, host: str | None = None) -> list[Mistake]:
    """Find what is wrong with a Serve configuration, in the order of its lines."""
    try:
        lines = Lines(path.read_text())
        content = _content(path, host)
    except OSError as error:
        return [located(Problem((), f"cannot be read: {error.strerror}"), path, None, None)]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        wrong = f"is no YAML: {getattr(error, 'problem', None) or error}"
        return [located(Problem((), wrong), path, None if mark is None else mark.line + 1, None)]
    found = [*lines.repeated_keys(), *problems(content)]
    mistakes: dict[tuple[object, str], Mistake] = {}
    for problem in found:
        # What an anchor holds is wrong once, wherever its aliases stand; the first to tell it says most.
        once = (lines.identity(problem.at), problem.wrong)
        mistakes.setdefault(once, located(problem, path, lines.of(problem.at), content))
    return sorted(mistakes.values(), key=lambda each: each.line or 0)


def catalog_of(path: Path) -> CatalogConfig:
    """Read where the catalog is, and nothing else, so that nothing else of the environment need be set.

    Raises:
        ConfigError: no gateway says it, or it is wrong.
    """
    try:
        applications = _content(path, None)["applications"]
        gateways = [each for each in applications if str(each["import_path"]).endswith(":build_gateway")]
        return CatalogConfig.model_validate(gateways[0]["args"]["catalog"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValidationError):
        raise ConfigError(f"{path} names no catalog: `vitrine config check {path}` says why") from None


def _content(path: Path, host: str | None) -> Any:
    content = yaml.safe_load(path.read_text())
    if host is not None and isinstance(content, dict):
        content["http_options"] = {**(content.get("http_options") or {}), "host": host}
    return content
