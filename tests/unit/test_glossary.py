"""The glossary: one word for one thing, in code, docs, configurations and the page.

`python -m tests.unit.test_glossary` prints what breaks it, in the form of `PENDING`.
"""

import json
import re
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
FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "NOTICE",
    "SECURITY.md",
    "compose.yaml",
    "README.md",
    "Makefile",
    "Dockerfile",
    "pyproject.toml",
    "serve_config.yaml",
)
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
    "awake": "running",
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
    "wake": "start",
    "wakes": "starts",
    "waking": "starting",
    "woken": "started",
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
    r"asleep|awake|sleeps|wakes?|waking|woken": "scaled to zero; running; start",
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
    r"sleeping (models?|encoders?|replicas?)|(may|should|lets? it|that) sleep": "scaled to zero",
    # What a user types. What keyword search looks up are words.
    r"(by|takes?|encodes?|embeds?|gives?|types?) words|images? in words": "text",
    r"(images?|pictures?),? (and|or) (for )?words|images?, words|words (and|or|against) images?": "text",
}

THEIRS = {
    "CancelledError",
    "cancelled",
    "cancelling",
    "chunksize",
    "WholeNumber",
}
"""Names of libraries; and the schema of a whole number, which is a word of arithmetic."""

ALLOWED = {
    # PNG and HTTP call a part of a file or of a body so.
    "tests/integration/catalog/test_fetching.py": {"chunks"},
    "tests/support/image_files.py": {"chunk"},
    "tests/unit/models/test_lenient.py": {"chunk"},
    "tests/unit/models/test_photographs.py": {"chunk"},
}

PENDING: Mapping[str, set[str]] = {
    "catalog/backup.py": {"whole"},
    "deployments/replicas/handles.py": {"cancelled"},
    "milvus/connection.py": {"cancelled"},
    "tests/e2e/test_jobs.py": {"cancelled"},
    "tests/integration/deployments/test_jobs_api.py": {"cancelled"},
    "tests/integration/jobs/test_import.py": {"cancelled", "tell"},
    "tests/integration/jobs/test_version_rollout.py": {"tell"},
    "tests/integration/milvus/test_filters.py": {"telling"},
    "tests/unit/deployments/test_handles.py": {"cancelled"},
    "tests/unit/jobs/test_run.py": {"cancelled"},
}
"""Files that still use a word that the glossary forbids; the list can only shrink."""

_NAME = re.compile(r"[^\W\d]\w*")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NO_NAMES = re.compile(r'(?s:"""(?:\\.|[^\\])*?""")|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*')
"""Strings and comments of a module."""
_DEFINITION = re.compile(r"^ *(class|def|async def) (\w+)", re.MULTILINE)
_IN_PROSE = re.compile("|".join(IN_PROSE))


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
        yield from _NAME.findall(_NO_NAMES.sub(" ", text))
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
    found = set()
    for kind, name in _DEFINITION.findall(text):
        if re.match(IN_CLASSES, name.lstrip("_")) if kind == "class" else re.match(IN_DEFINITIONS, name):
            found.add(name)
    return found


@cache
def is_forbidden(word: str) -> bool:
    return _IN_PROSE.fullmatch(word) is not None


def in_prose(text: str) -> set[str]:
    # Names are sentences here, as `test_a_name_is_kept`. Those of libraries are left out.
    lower = re.sub(rf"\b({'|'.join(THEIRS)})\b", "", text).replace("_", " ").lower()
    sentences = " ".join(re.sub(r"[#*]", " ", lower).split())
    words = {word for word in set(re.findall(r"[^\W\d]+", lower)) if is_forbidden(word)}
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
        ("# Give words: an image, words, or both wake the model.\n", {"give words", "image, words", "wake"}),
        ('"""Look up the words of a title; sleep(1) in other words."""\n', set()),
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
