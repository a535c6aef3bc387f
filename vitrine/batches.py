"""Streams of operations on products, sent in batches that are bounded by bytes and by number."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypedDict, TypeVar

import httpx

from vitrine.errors import InvalidRequest, ServiceError, Unavailable
from vitrine.query import ImageInput, encode_images
from vitrine.schemas.base import ErrorDetail
from vitrine.schemas.products import OperationResult, ProductBatchResponse
from vitrine.transport import AsyncSender, Call, Retries, Sender, given, waiting

T = TypeVar("T")
Source = Iterable[T] | AsyncIterable[T]
_PATH = "/v1/products:batch"


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product to put; the fields are those of `Vitrine.put_product`."""

    product_id: str
    title: str = ""
    description: str = ""
    attributes: Mapping[str, Any] | None = None
    images: Sequence[ImageInput] | None = None


@dataclass(slots=True)
class BatchSummary:
    """Numbers of operations that are done, and the results of those that failed, in no particular order."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    errors: list[OperationResult] = field(default_factory=list)

    @property
    def done(self) -> int:
        """All operations with a result, failed ones included."""
        return self.created + self.updated + self.deleted + len(self.errors)

    def add(self, results: Iterable[OperationResult]) -> None:
        """Count results."""
        for each in results:
            if each.error is not None:
                self.errors.append(each)
            elif each.status == 204:
                self.deleted += 1
            elif each.status == 201:
                self.created += 1
            else:
                self.updated += 1


class BatchOptions(TypedDict, total=False):
    """Options of calls that send many operations.

    `wait`: each request waits for the index, as `put_product` does. `on_progress` is called with the numbers so far
    after each batch. `max_bytes` and `max_operations` bound a request, `requests_at_once` those in flight.
    """

    wait: bool
    on_progress: Callable[[BatchSummary], None] | None
    max_bytes: int
    max_operations: int
    requests_at_once: int


@dataclass(frozen=True, slots=True)
class _Options:
    wait: bool = True
    on_progress: Callable[[BatchSummary], None] | None = None
    max_bytes: int = 8 * 2**20
    max_operations: int = 100
    requests_at_once: int = 4

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_operations, self.requests_at_once) < 1:
            raise ValueError("max_bytes, max_operations and requests_at_once are 1 or more")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as a line of JSON, or the reason why it cannot be sent."""

    product_id: str
    line: bytes
    failure: OperationResult | None = None
    is_delete: bool = False


def put_operation(product: NewProduct) -> Operation:
    """Encode a put and read its images; a file that cannot be read fails this product alone."""
    try:
        images = None if product.images is None else encode_images(product.images)
    # A path with the character NUL is a ValueError.
    except (OSError, ValueError) as error:
        message = f"an image cannot be read: {error}"
        return _failed(product.product_id, message, param="images")
    attributes = dict(product.attributes or {})
    fields = given(title=product.title, description=product.description, attributes=attributes, images=images)
    return _operation("put", product.product_id, fields)


def patch_operation(patch: tuple[str, Mapping[str, Any]]) -> Operation:
    """Encode a patch: the product's id and its changes."""
    product_id, changes = patch
    for name in ("op", "product_id"):
        if name in changes:
            return _failed(product_id, f"a patch changes no field `{name}`", param=name)
    return _operation("patch", product_id, changes)


def delete_operation(product_id: str) -> Operation:
    """Encode a delete."""
    return _operation("delete", product_id, {})


def _operation(op: str, product_id: str, fields: Mapping[str, Any]) -> Operation:
    value = {"op": op, "product_id": product_id, **fields}
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        return _failed(product_id, f"this product cannot be written as JSON: {error}")
    return Operation(product_id, line + b"\n", is_delete=op == "delete")


def _failed(product_id: str, message: str, param: str | None = None) -> Operation:
    error = InvalidRequest(message, type="invalid_input", param=param)
    return Operation(product_id, b"", _failure(product_id, error))


def _failure(product_id: str, error: ServiceError) -> OperationResult:
    detail = ErrorDetail(
        type=error.type, message=error.message, param=error.param, request_id=error.request_id or ""
    )
    # Not validated: the id may be what is wrong.
    return OperationResult.model_construct(product_id=product_id, status=error.status, error=detail)


class _Batcher:
    """Fills batches, with at most one operation on a product in each, so that those sent again keep their order."""

    def __init__(self, options: _Options) -> None:
        self._options = options
        self._batch: dict[str, Operation] = {}
        self._bytes = 0

    def add(self, operation: Operation) -> dict[str, Operation]:
        """Add an operation; return the batch before it if that has no room for it."""
        size = self._bytes + len(operation.line)
        is_full = size > self._options.max_bytes or len(self._batch) == self._options.max_operations
        full = self.take() if is_full or operation.product_id in self._batch else {}
        self._batch[operation.product_id] = operation
        self._bytes += len(operation.line)
        return full

    def take(self) -> dict[str, Operation]:
        """Return the batch, and begin the next."""
        batch, self._batch, self._bytes = self._batch, {}, 0
        return batch


@dataclass(frozen=True, slots=True)
class _BatchCall(Call[ProductBatchResponse]):
    """A request with a batch of `operations`; `deletes` are the places of its deletes."""

    operations: int = 0
    deletes: Sequence[int] = ()
    was_sent: bool = False

    def result(self, response: httpx.Response, retried: bool) -> ProductBatchResponse:
        """Read the response; an earlier attempt may have deleted what is not found, and its response was lost."""
        answer = Call.result(self, response, retried)
        if len(answer.results) != self.operations:
            message = f"{len(answer.results)} results came for {self.operations} operations"
            raise ServiceError(message, type="unexpected_answer", status=response.status_code)
        if retried or self.was_sent:
            for place in self.deletes:
                each = answer.results[place]
                if each.status == 404:
                    answer.results[place] = OperationResult(product_id=each.product_id, status=204)
        return answer


class _Exchange:
    """The requests of one batch.

    Operations that the service could not do just then are sent again, as whole requests are: each up to
    `Retries.count` times. A request that is too large for the service is sent in halves.
    """

    def __init__(self, batch: Iterable[Operation], options: _Options, retries: Retries) -> None:
        self._params = waiting(options.wait)
        self._retries = retries
        self.results: list[OperationResult] = []
        sound: list[Operation] = []
        for each in batch:
            if each.failure is None:
                sound.append(each)
            else:
                self.results.append(each.failure)
        self._open: list[tuple[list[Operation], int]] = [(sound, 0)]
        """Operations of requests to come, and how often they could not be done just then."""

    def calls(self) -> Iterator[_BatchCall]:
        """Give the next request until nothing is left; each is followed by `answered` or `failed`."""
        while self._open:
            batch, failures = self._open[-1]
            if not batch:
                self._open.pop()
                continue
            yield _BatchCall(
                "POST",
                _PATH,
                ProductBatchResponse,
                params=self._params,
                lines=b"".join(each.line for each in batch),
                operations=len(batch),
                deletes=[place for place, each in enumerate(batch) if each.is_delete],
                was_sent=failures > 0,
            )

    def failed(self, error: ServiceError) -> None:
        """Take an error of the last request; raise it unless a smaller request may work."""
        batch, failures = self._open.pop()
        if error.status != 413:
            raise error
        half = len(batch) // 2
        if half:
            self._open += [(batch[half:], failures), (batch[:half], failures)]
        else:
            self.results.append(_failure(batch[0].product_id, error))

    def answered(self, response: ProductBatchResponse) -> float:
        """Take the response to the last request; return the seconds to wait before the next one.

        Raises:
            Unavailable: after all retries the service could do nothing of the batch; others would fare the same.
        """
        batch, failures = self._open.pop()
        answers = list(zip(batch, response.results, strict=True))
        again = [operation for operation, result in answers if result.status in (429, 503)]
        if not again:
            self.results += [result for _, result in answers]
            return 0.0
        error = next(result.error for _, result in answers if result.status in (429, 503))
        unavailable = Unavailable(error.message if error else "not now", status=503)
        wait_s = self._retries.wait_s(unavailable, failures + 1)
        if wait_s is None and len(again) == len(answers) and not self.results:
            raise unavailable
        if wait_s is not None:
            self._open.append((again, failures + 1))
            answers = [each for each in answers if each[1].status not in (429, 503)]
        self.results += [result for _, result in answers]
        return wait_s or 0.0


def send_all(sender: Sender, operations: Iterable[Operation], options: BatchOptions) -> BatchSummary:
    """Send operations in batches, several requests at once; when it ends, however that is, nothing is sent any more.

    Raises:
        ServiceError: the service refused or did not answer a whole request.
    """
    chosen, summary = _Options(**options), BatchSummary()
    running: dict[Future[list[OperationResult]], Set[str]] = {}

    def send(batch: dict[str, Operation]) -> None:
        while len(running) >= chosen.requests_at_once or _overlaps(batch.keys(), running):
            collect()
        running[pool.submit(_send_batch, sender, batch.values(), chosen, stop)] = batch.keys()

    def collect() -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            running.pop(future)
            _count(summary, future.result(), chosen)

    batcher, stop = _Batcher(chosen), Event()
    pool = ThreadPoolExecutor(chosen.requests_at_once, "vitrine-batches")
    try:
        for operation in operations:
            if full := batcher.add(operation):
                send(full)
        if rest := batcher.take():
            send(rest)
        while running:
            collect()
    finally:
        # A put that is sent again later would undo what the caller does after an error.
        stop.set()
        pool.shutdown(cancel_futures=True)
    return summary


def _send_batch(
    sender: Sender, batch: Iterable[Operation], options: _Options, stop: Event
) -> list[OperationResult]:
    exchange = _Exchange(batch, options, sender.retries)
    for call in exchange.calls():
        try:
            response = sender.send(call, stop)
        except ServiceError as error:
            exchange.failed(error)
        else:
            if stop.wait(exchange.answered(response)):
                break
    return exchange.results


async def send_all_async(
    sender: AsyncSender,
    encode: Callable[[T], Operation],
    values: Source[T],
    options: BatchOptions,
) -> BatchSummary:
    """Encode values in threads and send them as `send_all` does; a plain iterator is read in threads too."""
    chosen, summary = _Options(**options), BatchSummary()
    running: dict[asyncio.Task[list[OperationResult]], Set[str]] = {}

    async def send(batch: dict[str, Operation]) -> None:
        while len(running) >= chosen.requests_at_once or _overlaps(batch.keys(), running):
            await collect()
        running[asyncio.create_task(_send_batch_async(sender, batch.values(), chosen))] = batch.keys()

    async def collect() -> None:
        for task in (await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))[0]:
            running.pop(task)
            _count(summary, task.result(), chosen)

    batcher = _Batcher(chosen)
    try:
        async for operation in _encoded(encode, values):
            if full := batcher.add(operation):
                await send(full)
        if rest := batcher.take():
            await send(rest)
        while running:
            await collect()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return summary


async def _send_batch_async(
    sender: AsyncSender, batch: Iterable[Operation], options: _Options
) -> list[OperationResult]:
    exchange = _Exchange(batch, options, sender.retries)
    for call in exchange.calls():
        try:
            response = await sender.send(call)
        except ServiceError as error:
            exchange.failed(error)
        else:
            await asyncio.sleep(exchange.answered(response))
    return exchange.results


async def _encoded(encode: Callable[[T], Operation], values: Source[T]) -> AsyncIterator[Operation]:
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield await asyncio.to_thread(encode, value)
        return
    encoded = map(encode, values)
    while (operation := await asyncio.to_thread(next, encoded, None)) is not None:
        yield operation


def _overlaps(batch: Set[str], running: Mapping[Any, Set[str]]) -> bool:
    return any(not batch.isdisjoint(products) for products in running.values())


def _count(summary: BatchSummary, results: Iterable[OperationResult], options: _Options) -> None:
    summary.add(results)
    if options.on_progress is not None:
        options.on_progress(summary)
