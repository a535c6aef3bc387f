"""The glossary: one word for one thing, in code, docs, configurations and the page.

`python -m tests.unit.test_glossary` prints what breaks it, in the form of `PENDING`.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "benchmarks",
    "catalog",
    "core",
    "demo",
    "deployments",
    "docs",
    "jobs",
    "k8s",
    "milvus",
    "models",
    "tests",
    "vitrine",
)
FILES = ("README.md", "Makefile", "Dockerfile", "pyproject.toml", "serve_config.yaml")
SUFFIXES = (".css", ".html", ".js", ".json", ".md", ".py", ".sh", ".toml", ".yaml", ".yml")
LEFT_OUT = (
    # Migrations name tables as they were.
    "catalog/migrations/versions",
    # Schemas and vocabularies of others, and figures.
    "demo/weights",
    "k8s/crds",
    "tests/unit/k8s/schemas",
    "tests/unit/test_glossary.py",
)

# Each with the word that takes its place.
IN_NAMES = {
    "absence": "circuit breaker",
    "absences": "circuit breaker",
    "asleep": "scaled to zero",
    "chunk": "batch",
    "chunks": "batched",
    "contender": "candidate or baseline",
    "contenders": "candidates or baselines",
    "cutter": "batched",
    "cutters": "batched",
    "door": "admission, authentication or gateway",
    "doors": "admission, authentication or gateway",
    "house": "package or layer",
    "portion": "batch",
    "portions": "batched",
    "resting": "scaled to zero",
    "rests": "scales to zero",
    "rooms": "packages or layers",
    "sleeping": "scaled to zero",
    "surroundings": "context or settings",
    "sweep": "repair",
    "sweeper": "repair",
    "sweeps": "repairs",
    "takeover": "promote or roll back",
    "tell": "report, record, log or emit",
    "telling": "reporting",
    "tells": "reports",
    "told": "reported, recorded or logged",
    "trial": "evaluation or sample",
    "untold": "unreported",
}
"""Words of identifiers, which are cut at `_` and at capitals. Names of tests are sentences."""

IN_DEFINITIONS = r"(?!test_).*(?<![a-z])(whole(?!_number)|seeing)(?![a-z])"
IN_CLASSES = r"(Look|Words|Like|Taken|Rest|Later|\w*Answer|\w*View)$"

IN_PROSE = {
    r"pictures?": "image",
    r"catalogues?": "catalog",
    r"lexical(ly)?": "keyword search",
    r"keyrings?": "API keys",
    r"surroundings": "context or settings",
    r"takeovers?|lineups?|contenders?": "candidate and baseline; promote and roll back",
    r"trials?": "evaluation or sample",
    r"portions?|cutters?": "batch, batched",
    r"told|untold": "reported, recorded or logged",
    r"asleep": "scaled to zero",
    # American spelling, as in the libraries that we use.
    r"\w*(colour|behaviour|favour|neighbour|flavour|honour|rumour|vapour|harbour|armour)\w*": "-or",
    r"\w*(normal|optim|quant|summar|minim|maxim|initial|serial|organ|recogn|synchron|author|custom|categor"
    r"|general|special|util|priorit|token|visual|vector|emphas|standard|stabil|local|real|final|central|material)"
    r"is(e|ed|es|er|ers|ing|ation|ations)": "-ize",
    r"centres?|centred|metres?|fibres?|theatres?": "-er",
    r"licences?|defences?|artefacts?|grey\w*|programmes?|whilst|learnt|spelt|misspelt|burnt|judgements?": "American",
    r"(label|travel|model|signal|cancel|initial)l(ed|ing|er)": "one l",
    r"analys(e|ed|ing)": "analyze",
}
"""Words of docs, comments, messages and of the names of tests."""

PHRASES = {
    r"words as written": "keyword search",
    r"(the|gateway's|our) doors?": "admission, authentication or gateway",
    r"take-overs?|line-ups?": "candidate and baseline; promote and roll back",
    r"tells? (whether|of|how|that)": "returns, reports or logs",
    r"rooms (above|below|of|under)|(this|other|upper|lower) rooms?": "packages or layers",
    r"sleeping (models?|encoders?|replicas?)": "scaled to zero",
}

THEIRS = {
    "CancelledError",
    "cancelled",
    "chunksize",
    "WholeNumber",
}
"""Names of libraries; and the schema of a whole number, which is a word of arithmetic."""

ALLOWED = {
    # PNG and HTTP call a part of a file or of a body so.
    "tests/e2e/test_odd_images.py": {"chunk", "chunks"},
    "tests/integration/catalog/test_fetching.py": {"chunks"},
    "tests/support/image_files.py": {"chunk"},
    "tests/unit/models/test_photographs.py": {"chunk"},
}

PENDING: Mapping[str, set[str]] = {
    "catalog/backup/archive.py": {"portion", "told", "whole"},
    "catalog/backup/backup.py": {"tells whether", "whole"},
    "core/api_keys.py": {"tell how", "tell whether"},
    "core/calibration.py": {"told"},
    "core/concurrency.py": {"absence"},
    "core/ensemble.py": {"absence", "absences", "telling"},
    "core/errors.py": {"told"},
    "core/hybrid.py": {"tell whether"},
    "core/vectors.py": {"tell whether"},
    "deployments/config.py": {"door", "gateway's doors"},
    "deployments/config_check/serve_file.py": {"door", "tell whether"},
    "deployments/config_check/validation.py": {"told"},
    "deployments/http/app.py": {"door"},
    "deployments/http/auth.py": {"door", "keyring", "tell whether", "the door"},
    "deployments/http/bodies.py": {"Taken"},
    "deployments/http/limits.py": {"sweep"},
    "deployments/http/openapi.py": {"ErrorView", "WeaviateErrorView", "the door"},
    "deployments/http/routes/captions.py": {"CaptionView"},
    "deployments/http/routes/embeddings.py": {"EmbeddingsView"},
    "deployments/http/routes/jobs.py": {"JobView", "ProgressView", "RowErrorView"},
    "deployments/http/routes/keys.py": {"KeyView", "MadeView", "keyring"},
    "deployments/http/routes/search.py": {
        "AgreementView",
        "AttributeView",
        "AttributesView",
        "CompareView",
        "ListView",
        "RankedView",
        "ValueView",
    },
    "deployments/http/routes/status.py": {
        "CaptionCountsView",
        "CountsView",
        "FailedView",
        "GapsView",
        "MissingView",
        "ModelView",
        "ReadyView",
        "StatsView",
        "VersionView",
        "keyring",
    },
    "deployments/http/routes/weaviate.py": {"MetaView", "VectorizeView"},
    "deployments/http/schemas.py": {
        "EmbeddingView",
        "ImageView",
        "ProductView",
        "ResultView",
        "SearchView",
        "WrittenView",
    },
    "deployments/observability/access_log.py": {"tell", "tell of", "tells of", "the door", "told", "untold"},
    "deployments/observability/metrics.py": {"told"},
    "deployments/observability/telemetry.py": {"rooms"},
    "deployments/proxy/load_shedding.py": {"the door"},
    "deployments/replicas/batching.py": {"told"},
    "deployments/replicas/gateway.py": {"door"},
    "deployments/replicas/handles.py": {"Rest", "asleep", "cancelled", "cancelling", "rests", "sleeping"},
    "deployments/replicas/repair.py": {"rests", "sleeping", "tell"},
    "deployments/services/api_keys.py": {"door", "keyring", "tell whether"},
    "deployments/services/assembly.py": {"door", "keyring"},
    "deployments/services/compare.py": {"telling"},
    "deployments/services/encoders.py": {"tell whether", "told"},
    "deployments/services/search.py": {"tell whether"},
    "deployments/services/status.py": {"asleep", "rests", "tell how", "told"},
    "deployments/web/js/gaps.js": {"told"},
    "deployments/web/js/jobs.js": {"told"},
    "deployments/web/js/models.js": {"words as written"},
    "deployments/web/js/notes.js": {"words as written"},
    "deployments/web/js/progress.js": {"told"},
    "deployments/web/js/query.js": {"told"},
    "deployments/web/js/saved.js": {"told"},
    "deployments/web/js/search.js": {"told"},
    "deployments/web/js/uploads.js": {"told"},
    "docs/api.md": {"told", "words as written"},
    "docs/architecture.md": {"misspelt", "takeover", "the door", "told", "words as written"},
    "docs/cli.md": {"told"},
    "docs/doors.md": {"the door"},
    "docs/operations.md": {"sleeping model", "tells how", "told"},
    "jobs/build/file_import.py": {"tells whether", "told"},
    "jobs/build/passes.py": {"told"},
    "jobs/build/shards.py": {"told"},
    "jobs/evaluation/evaluate.py": {"contender", "contenders", "lineup"},
    "jobs/evaluation/ranking.py": {"contender"},
    "jobs/evaluation/report.py": {"contender", "contenders"},
    "jobs/evaluation/result.py": {"contender", "contenders", "lineup"},
    "jobs/upgrade/plan.py": {"trial"},
    "jobs/upgrade/promote.py": {"surroundings", "takeover"},
    "jobs/upgrade/rollout.py": {"_whole", "surroundings", "take-over", "takeover"},
    "k8s/base/network_policies.yaml": {"told"},
    "milvus/bulk_import.py": {"chunk", "chunks"},
    "milvus/connection.py": {"cancelled"},
    "milvus/lite.py": {"told"},
    "milvus/lite_calls.py": {"tell", "tells of", "told"},
    "milvus/memory.py": {"tell whether"},
    "milvus/pages.py": {"tell whether"},
    "milvus/schema.py": {"chunk", "chunks"},
    "milvus/store.py": {"chunk", "chunks", "tell whether"},
    "tests/alone/test_several_nodes.py": {"asleep", "told"},
    "tests/alone/test_upgrade.py": {"told"},
    "tests/contracts/catalog_database.py": {"pictures"},
    "tests/e2e/browser/test_operations_states.py": {"cancelled"},
    "tests/e2e/browser/test_search_states.py": {"told"},
    "tests/e2e/test_back_pressure.py": {"told"},
    "tests/e2e/test_jobs.py": {"cancelled", "told"},
    "tests/e2e/test_odd_images.py": {"told"},
    "tests/e2e/test_readme.py": {"told"},
    "tests/e2e/test_telemetry.py": {"tells of", "told"},
    "tests/integration/deployments/test_api.py": {"told"},
    "tests/integration/deployments/test_auth.py": {"cancelled", "door", "keyring", "the door", "told"},
    "tests/integration/deployments/test_caption_repair.py": {"told"},
    "tests/integration/deployments/test_captions_api.py": {"told"},
    "tests/integration/deployments/test_compare_api.py": {"told"},
    "tests/integration/deployments/test_embeddings_api.py": {"told"},
    "tests/integration/deployments/test_haproxy.py": {"door", "the door", "told"},
    "tests/integration/deployments/test_jobs_api.py": {"cancelled", "told"},
    "tests/integration/deployments/test_memory.py": {"told"},
    "tests/integration/deployments/test_raw_fuzz.py": {"told"},
    "tests/integration/deployments/test_ready.py": {"asleep", "told"},
    "tests/integration/jobs/test_bulk_build.py": {"cancelled", "tells how", "told"},
    "tests/integration/jobs/test_disaster.py": {"told"},
    "tests/integration/jobs/test_evaluation.py": {"contender", "told"},
    "tests/integration/jobs/test_file_imports.py": {"told"},
    "tests/integration/jobs/test_import.py": {"cancelled", "tell"},
    "tests/integration/jobs/test_takeover.py": {"surroundings", "take-over", "takeover", "tell", "told"},
    "tests/integration/jobs/test_upgrade_targets.py": {"surroundings", "trial"},
    "tests/integration/jobs/test_verification.py": {"told"},
    "tests/integration/milvus/test_lite_owner.py": {"told"},
    "tests/integration/milvus/test_properties.py": {"telling"},
    "tests/integration/vitrine/test_cli.py": {"cancelled", "told", "trial"},
    "tests/integration/vitrine/test_client.py": {"cancelled", "told"},
    "tests/support/browser.py": {"tells of"},
    "tests/support/code_blocks.py": {"told"},
    "tests/support/documented_service.py": {"told"},
    "tests/support/local_encoder.py": {"told"},
    "tests/support/production.py": {"told"},
    "tests/support/ray_cluster.py": {"asleep", "tell whether", "told"},
    "tests/support/telemetry.py": {"tell", "told"},
    "tests/support/upgrade_stage.py": {"surroundings", "takeover", "told"},
    "tests/support/vector_stores.py": {"tell whether"},
    "tests/unit/core/test_absence.py": {"absence", "asleep"},
    "tests/unit/core/test_completion.py": {"Words"},
    "tests/unit/deployments/test_batching.py": {"told"},
    "tests/unit/deployments/test_handles.py": {"cancelled", "told"},
    "tests/unit/deployments/test_index_samples.py": {"told"},
    "tests/unit/deployments/test_metrics.py": {"told"},
    "tests/unit/deployments/test_observed.py": {"told"},
    "tests/unit/deployments/test_ray_jobs.py": {"told"},
    "tests/unit/deployments/test_request_ids.py": {"told"},
    "tests/unit/deployments/test_scale_to_zero.py": {"asleep", "rests", "sleeping", "told"},
    "tests/unit/deployments/test_serve_file.py": {"misspelt", "told"},
    "tests/unit/deployments/test_telemetry.py": {"told"},
    "tests/unit/jobs/test_commands.py": {"told"},
    "tests/unit/jobs/test_run.py": {"cancelled", "told"},
    "tests/unit/jobs/test_upgrade.py": {"told"},
    "tests/unit/k8s/test_dockerfile.py": {"rooms"},
    "tests/unit/k8s/test_monitoring.py": {"misspelt"},
    "tests/unit/k8s/test_schemas.py": {"misspelt"},
    "tests/unit/milvus/test_config.py": {"told"},
    "tests/unit/vitrine/test_cli.py": {"told"},
    "vitrine/calls.py": {"told"},
    "vitrine/cli/admin.py": {"told"},
    "vitrine/cli/configuration.py": {"told"},
    "vitrine/cli/output.py": {"contender", "tell whether"},
    "vitrine/cli/products.py": {"told"},
    "vitrine/cli/search.py": {"told"},
    "vitrine/cli/serving.py": {"told"},
    "vitrine/query.py": {"tell whether"},
    "vitrine/schemas.py": {"Answer"},
    "vitrine/transport.py": {"tell whether", "told"},
}
"""Files that still use a word that the glossary forbids; the list can only shrink."""

_NAME = re.compile(r"[^\W\d]\w*")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def files() -> list[str]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    names = [str(path.relative_to(ROOT)) for path in found] + [
        name for name in FILES if (ROOT / name).exists()
    ]
    return sorted(name for name in names if not name.startswith(LEFT_OUT) and "node_modules" not in name)


@cache
def broken(name: str) -> set[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = {*in_names(identifiers(name, text)), *in_prose(text)}
    if name.endswith(".py"):
        found |= in_definitions(text)
    return found - ALLOWED.get(name, set())


def identifiers(name: str, text: str) -> Iterator[str]:
    """Yield names: all of a module, and elsewhere those that no sentence has, as `a_name` or `aName`."""
    if name.endswith(".py"):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        yield from (token.string for token in tokens if token.type == tokenize.NAME)
    yield from (
        each for each in _NAME.findall(text) if "_" in each.strip("_") or each[1:] != each[1:].lower()
    )


def in_names(names: Iterable[str]) -> set[str]:
    words: set[str] = set()
    for name in {*names} - THEIRS:
        if not name.startswith("test_"):
            words.update(word.lower() for word in _WORD.findall(name))
    return words & IN_NAMES.keys()


def in_definitions(text: str) -> set[str]:
    nodes = [*ast.walk(ast.parse(text))]
    classes = (node.name for node in nodes if isinstance(node, ast.ClassDef))
    functions = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {
        *(name for name in classes if re.match(IN_CLASSES, name.lstrip("_"))),
        *(name for name in functions if re.match(IN_DEFINITIONS, name)),
    }


def in_prose(text: str) -> set[str]:
    # Names are sentences here, as `test_a_name_is_kept`. Those of libraries are left out.
    lower = re.sub(rf"\b({'|'.join(THEIRS)})\b", "", text).replace("_", " ").lower()
    sentences = " ".join(re.sub(r"[#*]", " ", lower).split())
    words = {word for word in set(re.findall(r"[^\W\d]+", lower)) if re.fullmatch("|".join(IN_PROSE), word)}
    return words | {found[0] for found in re.finditer(rf"\b({'|'.join(PHRASES)})\b", sentences)}


def all_broken() -> dict[str, set[str]]:
    return {name: words for name in files() if (words := broken(name))}


def test_files_use_the_words_of_the_glossary() -> None:
    new = {name: extra for name, words in all_broken().items() if (extra := words - PENDING.get(name, set()))}
    assert new == {}, f"the glossary forbids: {new}; instead: {IN_NAMES | IN_PROSE | PHRASES}"


def test_the_list_of_what_is_pending_holds_no_more_than_that() -> None:
    found = all_broken()
    assert {name: done for name, words in PENDING.items() if (done := words - found.get(name, set()))} == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class SearchView:\n    pass\n", {"SearchView"}),
        ("def load_whole_model() -> None: ...\n", {"load_whole_model"}),
        ("async def is_asleep(self): ...\n", {"asleep"}),
        ("def test_the_door_is_told(): ...\n", {"the door", "told"}),
        ("# By picture, in the catalogue's colours.\n", {"picture", "catalogue", "colours"}),
        ("time.sleep(1)\nfirst, *rest = whole\n", set()),
        ('"""Answer a part of the whole later than the rest."""\ntime.sleep(1)\n', set()),
        ("asyncio.CancelledError\ntask.cancelled()\n", set()),
        ("# The response tells a cat from a dog, and there is no room left.\n", set()),
    ],
)
def test_words_are_found_and_plain_english_is_not(text: str, words: set[str]) -> None:
    assert in_names(identifiers("a.py", text)) | in_prose(text) | in_definitions(text) >= words
    assert words or not in_names(identifiers("a.py", text)) | in_prose(text)


if __name__ == "__main__":
    print("PENDING: Mapping[str, set[str]] = {")
    for each, found in all_broken().items():
        print(f'    "{each}": {{{", ".join(json.dumps(word) for word in sorted(found))}}},')
    print("}")
