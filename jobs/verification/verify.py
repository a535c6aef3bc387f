"""The job `verify`: whether catalog, ledger, Milvus and picture files agree, and their repair."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from catalog.audit import StoredPicture
from catalog.opening import open_catalog
from core.errors import ConfigError, ModelUnavailable
from core.jobs import JobArgs, VerifyArgs
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.cluster import own_errors
from jobs.context import JobContext
from jobs.reindex import complete, describe
from jobs.settings import EncoderSettings, Settings
from jobs.upgrade.targets import as_it_was
from jobs.verification.differences import Findings
from jobs.verification.repairs import repair_rows
from jobs.verification.rows import check_files, compare_rows
from jobs.verification.vectors import Compared, compare_vectors
from milvus.store import MilvusStore
from models.local import LocalEncoder
from models.registry import load_encoder

Configured = Mapping[str, tuple[EncoderInfo, EncoderSettings]]
"""The configured version of each model, by its collection."""
CompareVectors = Callable[[EncoderSettings, EncoderInfo, Sequence[tuple[str, str]]], Compared | None]
"""Encodes pictures anew with a version; None where the settings give another."""


def verify(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Compare, and repair if asked to; returns the differences, what was repaired and what is left.

    Raises:
        Conflict: another verification is at work; the message holds its id.
        InvalidInput: there is no such model.
        Unavailable: the database, the files or Milvus are away.
    """
    assert isinstance(args, VerifyArgs)
    context.run.claim("the verification")
    store = MilvusStore(context.settings.milvus)
    try:
        configured = _configured(context, args.model)
        verification = Verification(context, store, configured, _on_cluster(context.settings))
        before = verification.compare(args.model, args.percent)
        result: dict[str, Any] = {"checked": verification.checked, "differences": before.told()}
        if args.repair and before.found:
            verification.repair(before, lambda info, encoder: _build(context, info, encoder))
            result["left"] = verification.compare(args.model, args.percent).told()
    finally:
        store.close()
    return result | {"agrees": not result.get("left", result["differences"])}


class Verification:
    """One look at everything, and the repair of what it found."""

    def __init__(
        self,
        context: JobContext,
        store: VectorStore,
        configured: Configured,
        compare_vectors: CompareVectors,
    ) -> None:
        self._context = context
        self._catalog = context.catalog
        self._store = store
        self._configured = configured
        self._compare_vectors = compare_vectors
        self.checked: dict[str, Any] = {}

    def compare(self, model: str | None, percent: float) -> Findings:
        """Look at every picture's file and at every version of the model, or of all models."""
        findings = Findings()
        pictures = {picture.key: picture for picture in self._catalog.audit.pictures()}
        self._context.run.report(stage="looking for picture files", total=len(pictures))
        check_files(
            self._catalog,
            {key: (each.sha256, each.bytes) for key, each in pictures.items()},
            findings,
            self._context.run.check,
        )
        self.checked = {"pictures": len(pictures), "versions": {}}
        for info in self._catalog.ledger.versions():
            if info.name in self._context.settings.encoders and model in (None, info.name):
                self._context.run.check()
                self._compare_version(info, pictures, percent, findings)
        named = {key for keys in findings.found.values() for key in keys}
        findings.products = {key: pictures[key].product_id for key in named if key in pictures}
        return findings

    def repair(self, findings: Findings, build: Callable[[EncoderInfo, EncoderSettings], object]) -> None:
        """Repair rows, then encode what is missing from the configured versions.

        Versions that are not configured are only brought in step with the ledger: should one come back,
        its rollback encodes what it lacks.
        """
        collections = sorted({collection for _, collection in findings.found if collection})
        # The configured ones first: of lost collections the first that is made again becomes live.
        for collection in sorted(collections, key=lambda each: each not in self._configured):
            self._context.run.report(stage=f"repairing {collection}")
            repair_rows(self._catalog, self._store, collection, findings)
            if collection in self._configured:
                build(*self._configured[collection])

    def _compare_version(
        self, info: EncoderInfo, pictures: Mapping[str, StoredPicture], percent: float, findings: Findings
    ) -> None:
        collection = info.collection
        self._context.run.report(stage=f"comparing {collection}")
        present = compare_rows(
            self._catalog,
            self._store,
            collection,
            pictures.keys(),
            collection in self._configured,
            findings,
        )
        some = random.sample(present, round(len(present) * percent / 100))
        self.checked["versions"][collection] = {"vectors": len(present), "encoded_anew": 0}
        if some:
            files = [(key, pictures[key].sha256) for key in some]
            self._compare_some(info, files, findings)

    def _compare_some(self, info: EncoderInfo, files: Sequence[tuple[str, str]], findings: Findings) -> None:
        self._context.run.report(stage=f"encoding anew for {info.collection}", total=len(files))
        encoder = self._settings_of(info)
        compared = None
        if encoder is not None:
            try:
                compared = self._compare_vectors(encoder, info, files)
            except (ConfigError, ModelUnavailable):
                compared = None
        if compared is None:
            findings.add("unchecked_version", info.collection, [info.collection])
            return
        self.checked["versions"][info.collection]["encoded_anew"] = compared.vectors
        findings.add("changed_vector", info.collection, compared.changed)
        findings.add("missing_file", "", compared.missing_files)
        findings.add("damaged_file", "", compared.damaged_files)

    def _settings_of(self, info: EncoderInfo) -> EncoderSettings | None:
        if info.collection in self._configured:
            return self._configured[info.collection][1]
        if self._catalog.versions.settings(info.collection) is None:
            return None
        return as_it_was(self._catalog, self._context.settings.encoders[info.name], info)


def _configured(context: JobContext, model: str | None) -> Configured:
    """Load the configured encoders that are asked for and have a version, to learn which version each is."""
    if model is not None:
        context.settings.encoder(model, {})
    known = {info.name for info in context.catalog.ledger.versions()}
    found = {}
    for name, encoder in context.settings.encoders.items():
        if name in known and model in (None, name):
            context.run.report(stage=f"loading {name}")
            info = describe(encoder, context.settings.bulk)
            found[info.collection] = (info, encoder)
    return found


def _build(context: JobContext, info: EncoderInfo, encoder: EncoderSettings) -> None:
    # What live traffic may leave to the next round in a build is left out here: all is to be repaired.
    bulk = context.settings.bulk.model_copy(update={"gap_threshold": 0})
    complete(context.run, replace(context.settings, bulk=bulk), context.catalog, encoder, info)


def _on_cluster(settings: Settings) -> CompareVectors:
    def compare(
        encoder: EncoderSettings, info: EncoderInfo, files: Sequence[tuple[str, str]]
    ) -> Compared | None:
        task = ray.remote(max_retries=1, **encoder.resources(settings.bulk))(_load_and_compare)
        with own_errors():
            compared: Compared | None = ray.get(task.remote(settings, encoder, info, list(files)))
        return compared

    return compare


def _load_and_compare(
    settings: Settings, encoder: EncoderSettings, info: EncoderInfo, files: Sequence[tuple[str, str]]
) -> Compared | None:
    loaded = load_encoder(encoder.config)
    if loaded.info.collection != info.collection:
        return None
    catalog, store = open_catalog(settings.catalog), MilvusStore(settings.milvus)
    client = LocalEncoder(loaded, encoder.config.decode_threads)
    try:
        return asyncio.run(compare_vectors(client, info, catalog, store, files))
    finally:
        store.close()
        catalog.close()
