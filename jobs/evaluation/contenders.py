"""Who is compared: versions of models, and ensembles of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.ensemble import Fusion
from core.errors import InvalidInput
from core.jobs import CANDIDATE, EnsembleArgs, EvaluateArgs
from jobs.settings import EncoderSettings, Settings


@dataclass(frozen=True, slots=True)
class Contender:
    """A version by its label, or several with weights; `fusion` is None for one alone."""

    name: str
    weights: Mapping[str, float]
    fusion: Fusion | None


@dataclass(frozen=True, slots=True)
class LineUp:
    """The versions by label, and who is made of them; `live` and `candidate` are what the gate judges."""

    versions: Mapping[str, EncoderSettings]
    contenders: tuple[Contender, ...]
    live: str | None
    candidate: str | None


def line_up(settings: Settings, args: EvaluateArgs, default_models: Sequence[str]) -> LineUp:
    """Choose versions and contenders; without models in the arguments, `default_models` are compared.

    Raises:
        InvalidInput: a model, a candidate or a member of an ensemble cannot be, or names repeat.
    """
    live = args.candidate.model if args.candidate else None
    models = list(dict.fromkeys([*(args.models or default_models), *([live] if live else [])]))
    versions = {model: settings.encoder(model, {}) for model in models}
    candidate = None
    if args.candidate:
        candidate = f"{live}{CANDIDATE}"
        versions[candidate] = settings.encoder(args.candidate.model, args.candidate.candidate)
    ensembles = [_checked(each, versions) for each in args.ensembles] or _configured(settings, versions, live)
    contenders = [Contender(label, {label: 1.0}, None) for label in versions]
    contenders += [Contender(each.name, each.weights, each.fusion) for each in ensembles]
    names = [contender.name for contender in contenders]
    if len(set(names)) < len(names):
        raise InvalidInput(f"two are called alike: {', '.join(names)}").at("ensembles")
    return LineUp(versions, tuple(contenders), live, candidate)


def _configured(
    settings: Settings, versions: Mapping[str, EncoderSettings], live: str | None
) -> list[EnsembleArgs]:
    """The configured ensemble where all its members are compared, and the same with the candidate."""
    found = settings.ensemble
    if found is None:
        return []
    weights = {name: weight for name, weight in found.weights.items() if weight > 0}
    if not set(weights) <= set(versions) or len(weights) < 2:
        return []
    ensembles = [found.model_copy(update={"weights": weights})]
    if live in weights:
        renewed = {f"{name}{CANDIDATE}" if name == live else name: each for name, each in weights.items()}
        ensembles.append(found.model_copy(update={"name": f"{found.name}{CANDIDATE}", "weights": renewed}))
    return ensembles


def _checked(ensemble: EnsembleArgs, versions: Mapping[str, EncoderSettings]) -> EnsembleArgs:
    strangers = sorted(set(ensemble.weights) - set(versions))
    if strangers:
        raise InvalidInput(
            f"{strangers[0]!r:.80} of ensemble {ensemble.name!r:.80} is not compared; "
            f"there are: {', '.join(versions)}"
        ).at("ensembles")
    if not any(ensemble.weights.values()):
        raise InvalidInput(f"no member of ensemble {ensemble.name!r:.80} has a weight above 0").at(
            "ensembles"
        )
    return ensemble
