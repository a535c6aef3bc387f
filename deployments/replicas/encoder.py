"""One replica of an encoder: decodes images in threads or processes, and runs the model on batches."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from core.concurrency import TtlCache, batched, run_in
from core.errors import ModelUnavailable, VitrineError, expected
from core.types import (
    PROBE,
    Captioned,
    Encoded,
    EncoderInfo,
    EncoderInput,
    ImageInput,
    Matched,
    NamedFile,
    TokenCount,
    Vector,
)
from deployments.observability.metrics import ERRORS, STAGE_SECONDS
from deployments.observability.telemetry import called, error_type, past_span, start_telemetry
from deployments.replicas.batching import Answers, Batches, ModelThread, Work
from deployments.replicas.dependencies import wait_for
from deployments.replicas.embedding_cache import SharedWorks
from models.config import EncoderConfig
from models.decode_processes import DecodeProcesses, Slots
from models.encoder import Encoder, Pixels, load_encoder
from models.images import not_prepared
from models.matching import FeatureCache, Features

DEAD_BATCHES = 3
"""Failed batches in a row, of one kind of input, after which a replica asks to be replaced."""
PROBE_TTL_S = 5.0
"""Time to live of a probe's answer. Readiness needs no key, so it must not take much of the model's time."""
IMAGES_A_TASK = 4
"""Most images of a request that one task hashes and decodes: handing over a task costs a tenth of an image."""
IMAGES_A_PROCESS = 8
"""The same where a process decodes them: with 4, the replica's own process took a fifth more time an image."""
BATCHES_OF_SLOTS = 3
"""Batches whose pixels the shared memory of decode processes holds: one in the model, one that is complete, and one
that is decoded."""
Image = tuple[int, ImageInput]
"""An image and its place in the request."""
T = TypeVar("T")


class EncoderReplica:
    """Serves one model.

    Images are decoded as they arrive. So decoding overlaps with the forward pass of the batch before, and a broken
    image never joins a batch. One thread owns the model. A thread decodes images itself, or has a process do it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        start_telemetry()
        self._model_thread = ModelThread()
        # torch keeps the CUDA graphs of a compiled model by thread, so the thread that runs it loads it.
        load = partial(wait_for, partial(load_encoder, config))
        self._encoder = self._model_thread.submit(load).result()
        self._encoder.ends_process = True
        self._max_batch_s = config.max_batch_s
        self._processes = _start_processes(config, self._encoder)
        self._decode_threads = config.decode_threads if self._processes is None else self._processes.count
        self._images_a_task = IMAGES_A_TASK if self._processes is None else IMAGES_A_PROCESS
        self._decoders = ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode")
        self._probes = TtlCache[None, Vector](lambda _: self._probe(), PROBE_TTL_S)
        batches = partial(
            Batches, thread=self._model_thread, wait_s=config.batch_wait_timeout_s, model=config.name
        )
        size, captions = config.max_batch_size, config.captions.max_batch_size if config.captions else 1
        model = self._encoder
        self._embeddings = SharedWorks(model.info, config.cache_max_bytes)
        self._uncached = SharedWorks(model.info, 0)
        embedded = partial(_settle, self._embeddings, f"encoding with {config.name}")
        captioned = partial(_settle, self._uncached, f"captioning with {config.name}")
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="helper")
        # On a GPU another thread waits for vectors, so that the model's begins the next batch meanwhile.
        self._reader = ModelThread() if model.runs_ahead else None
        self._images: Batches[Pixels, Vector | VitrineError] = batches(
            model.start_images if model.runs_ahead else model.encode_images,
            "image",
            size,
            settle=embedded,
            gather=model.gather,
            gatherer=self._helper,
            reader=self._reader,
        )
        self._texts: Batches[str, Vector | VitrineError] = batches(
            model.start_texts if model.runs_ahead else model.encode_texts,
            "text",
            size,
            settle=embedded,
            reader=self._reader,
        )
        self._captions: Batches[Pixels, str | VitrineError] = batches(
            model.caption, "caption", captions, settle=captioned
        )
        looked = partial(_settle, self._uncached, f"matching with {config.name}")
        self._looks: Batches[Pixels, Features | VitrineError] = batches(
            model.features, "image", size, settle=looked
        )
        matched = partial(_settle, self._uncached, f"matching with {config.name}")
        self._matches: Batches[tuple[str, Features], float | VitrineError] = batches(
            self._match_all, "match", size, settle=matched
        )
        self._threads = [each for each in (self._model_thread, self._reader) if each]
        self._features = FeatureCache(config.feature_cache_max_bytes)

    async def describe(self) -> EncoderInfo:
        """Return the version that this replica runs."""
        return self._encoder.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embed images and texts; each input succeeds or fails alone, in input order."""
        started = time.perf_counter()
        with called("encode", self._encoder.info.name, len(inputs)):
            answers = Answers[Vector | VitrineError](len(inputs))
            images, texts, probes = list[Image](), list[tuple[int, str]](), list[int]()
            for place, item in enumerate(inputs):
                if isinstance(item, str):
                    texts.append((place, item))
                elif item == PROBE:
                    probes.append(place)
                else:
                    images.append((place, item))
            answered = self._answered(answers, images, self._images, self._embeddings)
            if texts or probes:
                self._embed_texts(answers, texts)
                counted = self._count_tokens([text for _, text in texts])
                vectors, tokens, _ = await asyncio.gather(
                    answered, counted, self._answer_probes(answers, probes)
                )
            else:
                vectors, tokens = await answered, TokenCount()
        timings_ms = {"replica": (time.perf_counter() - started) * 1e3}
        return Encoded(self._encoder.info, vectors, timings_ms, tokens)

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Write captions for image files; each succeeds or fails alone, in input order.

        Raises:
            UnsupportedModality: this model writes no captions.
        """
        self._encoder.caption([])
        started = time.perf_counter()
        with called("caption", self._encoder.info.name, len(images)):
            answers = Answers[str | VitrineError](len(images))
            texts = await self._answered(answers, list(enumerate(images)), self._captions, self._uncached)
        return Captioned(self._encoder.info, texts, {"replica": (time.perf_counter() - started) * 1e3})

    async def match(self, text: str, images: Sequence[NamedFile]) -> Matched:
        """Score how well a text fits images, by features of the cache, or else of the files.

        The score of an image that is not in the cache and has no file is None.

        Raises:
            UnsupportedModality: this model has no matching head.
        """
        self._encoder.match(text, [])
        started = time.perf_counter()
        with called("match", self._encoder.info.name, len(images)):
            scores: list[float | VitrineError | None] = [None] * len(images)
            known: dict[int, Features] = {}
            files: dict[int, bytes] = {}
            for place, (sha256, data) in enumerate(images):
                if (held := self._features.get(sha256)) is not None:
                    known[place] = held
                elif data is not None:
                    files[place] = data
            answers = Answers[Features | VitrineError](len(files))
            looked = await self._answered(
                answers, list(enumerate(files.values())), self._looks, self._uncached
            )
            for place, found in zip(files, looked, strict=True):
                if isinstance(found, VitrineError):
                    scores[place] = found
                else:
                    self._features.put(images[place][0], found)
                    known[place] = found
            judged = Answers[float | VitrineError](len(known))
            for number, features in enumerate(known.values()):
                work = Work((text, features), [(judged, number)])
                judged.works.append(work)
            self._matches.add(judged.works)
            try:
                for place, score in zip(known, await judged.all(self._encoder.info.name), strict=True):
                    scores[place] = score
            finally:
                self._uncached.leave(judged)
        return Matched(self._encoder.info, scores, {"replica": (time.perf_counter() - started) * 1e3})

    def _match_all(self, pairs: Sequence[tuple[str, Features]]) -> list[float | VitrineError]:
        """Score pairs of a text and the features of an image, in order."""
        scores = []
        for text, some in groupby(pairs, itemgetter(0)):
            scores += self._encoder.match(text, [features for _, features in some])
        return scores

    async def check_health(self) -> None:
        """Fail when the model has stopped answering; Serve then replaces the replica."""
        kinds = (self._images, self._texts, self._captions, self._looks, self._matches)
        failed = max(each.failed_in_a_row for each in kinds)
        if failed >= DEAD_BATCHES:
            raise ModelUnavailable(f"the model failed on {failed} batches in a row")
        if (busy_s := max(each.busy_s for each in self._threads)) > self._max_batch_s:
            raise ModelUnavailable(f"a batch has been in the model for {busy_s:.0f} s")

    async def _answered(
        self,
        answers: Answers[T],
        images: Sequence[Image],
        batches: Batches[Pixels, T],
        shared: SharedWorks,
    ) -> list[T]:
        """Bring the images into batches, and return all answers of the request."""
        loop = asyncio.get_running_loop()
        size = min(self._images_a_task, -(-len(images) // self._decode_threads)) or 1
        batches.expect(len(images))
        tasks = []
        for start in range(0, len(images), size):
            some, context = images[start : start + size], copy_context()
            task = self._decoders.submit(context.run, self._prepare, answers, some, shared)
            done = partial(self._prepared, answers, len(some), batches, shared, context, loop.time())
            task.add_done_callback(partial(_call_in, loop, done))
            tasks.append(task)
        try:
            return await answers.all(self._encoder.info.name)
        except asyncio.CancelledError:
            shared.leave(answers)
            for task in tasks:
                # What has not begun never runs.
                task.cancel()
            raise

    def _prepare(self, answers: Answers[Any], images: Sequence[Image], shared: SharedWorks) -> "_Prepared":
        """Look up and decode some images of a request, in a thread."""
        prepared = _Prepared()
        # A process gets all images of the task at once. A thread gives up what nobody wants before each image.
        for some in batched(images, 1 if self._processes is None else len(images)):
            if not answers.is_wanted:
                break
            works, files = list[Work[Any, Any]](), list[ImageInput]()
            for place, image in some:
                prepared.looked_up += 1
                try:
                    found = shared.claim(image, answers, place)
                except Exception as error:
                    failure = expected(error, f"looking up an image for {self._encoder.info.name}")
                    prepared.failed.append((Work(image, [(answers, place)]), failure))
                    continue
                if isinstance(found, Work):
                    works.append(found)
                    files.append(image)
                elif found is not None:
                    prepared.held.append((place, found))
            for work, outcome in zip(works, self._decode(files), strict=True):
                if isinstance(outcome, Exception):
                    prepared.failed.append((work, outcome))
                else:
                    # Images that wait for captions, which are slow, or for matching must not keep the slots from
                    # embeddings.
                    work.item = outcome.copy() if shared is self._uncached else outcome
                    prepared.decoded.append(work)
        return prepared

    def _decode(self, images: Sequence[ImageInput]) -> list[Pixels | VitrineError]:
        """Decode images; each succeeds or fails alone, in input order."""
        if not images:
            return []
        if self._processes is not None:
            outcomes = self._processes.decode(images)
        else:
            outcomes = [_outcome(self._encoder.decode, image) for image in images]
        model = self._encoder.info.name
        return [not_prepared(each, model) if isinstance(each, Exception) else each for each in outcomes]

    def _prepared(
        self,
        answers: Answers[Any],
        count: int,
        batches: Batches[Pixels, Any],
        shared: SharedWorks,
        context: Context,
        since_s: float,
        task: "Future[_Prepared]",
    ) -> None:
        """Pass on what a thread has prepared, in the event loop."""
        prepared = _Prepared() if task.cancelled() else task.result()
        batches.add([work for work in prepared.decoded if work.waiters], expected=count)
        for work in prepared.decoded:
            if not work.waiters:
                work.let_go()
        for place, vector in prepared.held:
            answers.set(place, vector)
        model = self._encoder.info.name
        kinds = [error_type(error) for _, error in prepared.failed]
        shared.settle([work for work, _ in prepared.failed], [error for _, error in prepared.failed])
        for kind in kinds:
            ERRORS.add(stage="preprocess", model=model, type=kind)
        if misses := len(prepared.decoded) + len(prepared.failed):
            now_s = asyncio.get_running_loop().time()
            STAGE_SECONDS.observe(now_s - since_s, stage="preprocess", model=model)
            labels = {"vitrine.model": model}
            context.run(past_span, "preprocess", since_s, now_s, now_s, next(iter(kinds), None), **labels)
        shared.count(prepared.looked_up - misses, misses)

    def _embed_texts(self, answers: Answers[Vector | VitrineError], texts: Sequence[tuple[int, str]]) -> None:
        try:
            if "text" not in self._encoder.info.modalities:
                # Refused here, so that it takes no place in a batch and counts as no error of the model.
                self._encoder.encode_texts([])
        except VitrineError as refusal:
            for place, _ in texts:
                answers.set(place, refusal)
            return
        works = []
        for place, text in texts:
            found = self._embeddings.claim(text, answers, place)
            if isinstance(found, Work):
                works.append(found)
            elif found is not None:
                answers.set(place, found)
        self._embeddings.count(len(texts) - len(works), len(works))
        self._texts.add(works)

    async def _count_tokens(self, texts: Sequence[str]) -> TokenCount:
        # Not where images may wait for the model.
        return await run_in(self._helper, self._encoder.count_tokens, texts) if texts else TokenCount()

    async def _answer_probes(self, answers: Answers[Vector | VitrineError], places: Sequence[int]) -> None:
        for place in places:
            try:
                answers.set(place, await self._probes.get(None))
            except VitrineError as error:
                answers.set(place, error)

    async def _probe(self) -> Vector:
        """Run the probe through the model itself, past the cache of embeddings."""
        (pixels,) = await run_in(self._decoders, self._decode, [PROBE])
        if isinstance(pixels, Exception):
            raise pixels
        answer = await self._images.submit(pixels)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _forget_frames(error: BaseException | None) -> None:
    """Cut an error, and those that led to it, off the frames that they passed: these hold all images of a task."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


@dataclass(slots=True)
class _Prepared:
    """Images of a request: answered by the cache, decoded, or failed; others wait for the work of another request."""

    looked_up: int = 0
    held: list[tuple[int, Vector]] = field(default_factory=list)
    decoded: list[Work[Any, Any]] = field(default_factory=list)
    failed: list[tuple[Work[Any, Any], VitrineError]] = field(default_factory=list)


def _start_processes(config: EncoderConfig, encoder: Encoder) -> DecodeProcesses | None:
    count = config.decode_processes
    if count is None:
        count = 0 if encoder.info.device == "cpu" else config.decode_threads
    if not count:
        return None
    slots = BATCHES_OF_SLOTS * max(config.max_batch_size, count * IMAGES_A_PROCESS)
    return DecodeProcesses(encoder.decoder(), Slots(encoder.decode(PROBE).shape, slots), count)


def _outcome(decode: Callable[[ImageInput], Pixels], image: ImageInput) -> Pixels | Exception:
    try:
        return decode(image)
    except Exception as error:
        _forget_frames(error)
        return error


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[T], None], value: T) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, value)


def _settle(
    shared: SharedWorks, doing: str, works: Sequence[Work[Any, Any]], outcomes: Sequence[Any]
) -> None:
    shared.settle(
        works, [expected(each, doing) if isinstance(each, Exception) else each for each in outcomes]
    )
