"""Route of batches: many operations on products in one request, each of which succeeds or fails alone."""

import asyncio
import io
import math
import time
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from catalog.products import DeleteProduct, Operation, PutProduct
from core.concurrency import BODIES, MAX_ENCODE_BYTES, run_in
from core.errors import DeadlineExceeded, InvalidInput, Unavailable, VitrineError, expected
from deployments.http.auth import READ, WRITE
from deployments.http.errors import WITH_BODY, WITH_KEY, error_body, fails, status_of
from deployments.http.middleware import within_deadline
from deployments.http.requests import (
    JSON,
    NDJSON,
    BodyRoute,
    M,
    check_model,
    check_nul,
    is_url,
    media_type,
    parse_json,
    services,
)
from deployments.http.routes.products import (
    Prefer,
    Wait,
    applied_wait,
    overall,
    patch_operation,
    put_operation,
)
from deployments.services.assembly import Services
from deployments.services.products import Written
from vitrine.schemas.base import ErrorDetail
from vitrine.schemas.products import (
    MAX_OPERATIONS,
    DeleteOperation,
    OperationResult,
    PatchOperation,
    ProductBatchRequest,
    ProductBatchResponse,
    ProductOperation,
    PutOperation,
)

_READ_AHEAD = 8
"""Most operations of a batch whose images are fetched, decoded and checked side by side."""
_READ_AHEAD_BYTES = 128 * 2**20
"""Most bytes of these images. Until a file behind a URL is there, it counts as the largest that may be fetched."""
_OPERATIONS_AT_ONCE = 100
"""Most operations of one transaction: on SQLite all other writers wait for it."""
_TRANSACTIONS_AT_ONCE = 2
_WAITING_SHARE = 1 / 3
"""Share of the request's time after which no write waits for the index, so that the rest is stored in time."""
_WORKING_SHARE = 0.9
"""Share of the request's time after which the batch ends; at the deadline itself all results would be lost."""
_MAX_ID_CHARS = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """A value that is no operation, why, and the id of the product that it names, if any."""

    product_id: str | None
    error: VitrineError


Read = PutOperation | PatchOperation | DeleteOperation | Refused


class BatchRoute(BodyRoute):
    """Reads each operation of a list, or each line, by itself: a wrong one costs the others nothing."""

    async def read(self, request: Request, model: type[M]) -> M:
        """Read the body; the model's operations are of the type `Read`.

        Raises:
            UnsupportedMediaType, InputTooLarge, InvalidInput: the body as a whole is not as declared.
        """
        read = _read_lines if media_type(request, (JSON, NDJSON)) == NDJSON else _read_list
        operations = await run_in(BODIES, read, await request.body())
        return model.model_construct(operations=operations)


router = APIRouter(
    prefix="/v1", tags=["products"], dependencies=[READ], responses=fails(*WITH_KEY), route_class=BatchRoute
)


@router.post(
    "/products:batch",
    summary="Put, patch and delete many products",
    response_model_exclude_unset=True,
    dependencies=[WRITE],
    openapi_extra={
        "requestBody": {
            "content": {NDJSON: {"schema": {"type": "string", "description": "One operation a line."}}}
        }
    },
    responses=fails(*WITH_BODY),
)
async def write_products(
    request: Request,
    response: Response,
    body: ProductBatchRequest,
    wait: Wait = True,
    prefer: Prefer = None,
) -> ProductBatchResponse:
    """Put, patch and delete up to 1,000 products, as a JSON list or as NDJSON with one operation a line.

    Each operation succeeds or fails alone, and has its own result, in order. Operations on one product apply in
    order. Send an operation with status 429 or 503 again; doing one twice does no harm.
    """
    operations = cast(Sequence[Read], body.operations)
    service = services(request)
    batch = _Batch(service, operations, applied_wait(response, wait, prefer))
    outcomes = await batch.run()
    return ProductBatchResponse(
        results=[
            _result(operation, outcome, request.state.request_id)
            for operation, outcome in zip(operations, outcomes, strict=True)
        ]
    )


def _read_list(data: bytes) -> list[Read]:
    value = parse_json(data, "body")
    if not isinstance(value, dict) or set(value) != {"operations"}:
        raise InvalidInput('send an object with one field, `operations`: {"operations": [...]}').at("body")
    if not isinstance(value["operations"], list):
        raise InvalidInput("send a list of operations").at("operations")
    may_hold_nul = b"\\u0000" in data
    return _counted(_read(each, may_hold_nul) for each in value["operations"])


def _read_lines(data: bytes) -> list[Read]:
    # Programs on Windows write a byte order mark before the first line.
    return _counted(_read_line(line) for line in io.BytesIO(data.removeprefix(BOM_UTF8)) if line.strip())


def _counted(read: Iterable[Read]) -> list[Read]:
    operations: list[Read] = []
    for each in read:
        if len(operations) == MAX_OPERATIONS:
            raise InvalidInput(f"a batch has at most {MAX_OPERATIONS} operations").at("operations")
        operations.append(each)
    if not operations:
        raise InvalidInput(f"send 1 to {MAX_OPERATIONS} operations").at("operations")
    return operations


def _read_line(line: bytes) -> Read:
    try:
        return _read(parse_json(line, "body"), b"\\u0000" in line)
    except VitrineError as error:
        return Refused(None, error)


def _read(value: Any, may_hold_nul: bool) -> Read:
    try:
        if may_hold_nul and isinstance(value, dict):
            check_nul(value)
        operation: Read = check_model(value, cast(Any, ProductOperation), "op")
        return operation
    except VitrineError as error:
        named = value.get("product_id") if isinstance(value, dict) else None
        is_id = isinstance(named, str) and len(named) <= _MAX_ID_CHARS
        return Refused(named if is_id else None, error)


class _Batch:
    """Reads the images of operations a few at a time, and writes them in transactions bounded by bytes."""

    def __init__(self, service: Services, operations: Sequence[Read], wait: bool) -> None:
        self._service = service
        self._operations = operations
        self._outcomes: dict[int, Written | VitrineError] = {}
        self._time_s = within_deadline(math.inf)
        self._waits_until = time.monotonic() + self._time_s * _WAITING_SHARE if wait else 0.0
        self._ahead: dict[int, int] = {}
        """Bytes of images that are read ahead, by the place of their operation."""
        self._pending: dict[int, Operation] = {}
        self._held_bytes = 0
        self._places = asyncio.Semaphore(_TRANSACTIONS_AT_ONCE)
        self._latest: dict[str, asyncio.Task[None]] = {}
        """The write of each product that was started last."""
        self._unavailable: VitrineError | None = None

    async def run(self) -> list[Written | VitrineError]:
        """Do all that the request's time allows; return the outcomes in the order of the operations."""
        limit_s = None if math.isinf(self._time_s) else self._time_s * _WORKING_SHARE
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s), self._service.batches, asyncio.TaskGroup() as tasks:
                await self._run(tasks)
        late = DeadlineExceeded("the time of the request ended before this was done; send it again")
        return [self._outcomes.get(index, late) for index in range(len(self._operations))]

    async def _run(self, tasks: asyncio.TaskGroup) -> None:
        ahead = deque[tuple[int, asyncio.Task[Operation | VitrineError]]]()
        for index, operation in enumerate(self._operations):
            size = self._most_bytes(operation)
            while ahead and (
                len(ahead) == _READ_AHEAD or sum(self._ahead.values()) + size > _READ_AHEAD_BYTES
            ):
                await self._add(tasks, *ahead.popleft())
            self._ahead[index] = size
            ahead.append((index, tasks.create_task(self._prepare(index, operation))))
        while ahead:
            await self._add(tasks, *ahead.popleft())
        await self._start_write(tasks)

    def _most_bytes(self, operation: Read) -> int:
        """Return the most bytes that the images of an operation can have."""
        sources = (operation.images or ()) if isinstance(operation, PutOperation) else ()
        urls = [each for each in sources if is_url(each)]
        return self._service.fetcher.most_bytes(len(urls)) + sum(
            len(each) for each in sources if not is_url(each)
        )

    async def _prepare(self, index: int, operation: Read) -> Operation | VitrineError:
        try:
            match operation:
                case Refused():
                    return operation.error
                case DeleteOperation():
                    return DeleteProduct(operation.product_id)
                case PatchOperation():
                    return patch_operation(operation.product_id, operation)
                case PutOperation():
                    put = await put_operation(
                        self._service, operation.product_id, operation, operation.images
                    )
                    # Otherwise the base64 of all images would be held until the batch ends.
                    operation.images = None
                    self._ahead[index] = _size(put)
                    return put
        except Exception as error:
            return expected(error, "reading the images of a product")

    async def _add(
        self, tasks: asyncio.TaskGroup, index: int, read: asyncio.Task[Operation | VitrineError]
    ) -> None:
        operation = await read
        del self._ahead[index]
        if isinstance(operation, VitrineError):
            self._outcomes[index] = operation
            return
        size = _size(operation)
        if self._held_bytes + size > MAX_ENCODE_BYTES or len(self._pending) == _OPERATIONS_AT_ONCE:
            await self._start_write(tasks)
        self._pending[index] = operation
        self._held_bytes += size

    async def _start_write(self, tasks: asyncio.TaskGroup) -> None:
        operations, self._pending, self._held_bytes = self._pending, {}, 0
        if not operations:
            return
        await self._places.acquire()
        products = {operation.product_id for operation in operations.values()}
        before = {self._latest[each] for each in products if each in self._latest}
        task = tasks.create_task(self._write(operations, before))
        task.add_done_callback(lambda _: self._places.release())
        self._latest.update(dict.fromkeys(products, task))

    async def _write(self, operations: dict[int, Operation], before: set[asyncio.Task[None]]) -> None:
        """Write after earlier writes of the same products; when the catalog is away, write no more."""
        if before:
            await asyncio.wait(before)
        outcomes: Sequence[Written | VitrineError] = (
            [self._unavailable] * len(operations) if self._unavailable else []
        )
        if not outcomes:
            wait = time.monotonic() < self._waits_until
            try:
                outcomes = await self._service.writes.write(list(operations.values()), wait)
            except Exception as error:
                failure = expected(error, "writing a batch of products")
                if isinstance(failure, Unavailable):
                    self._unavailable = failure
                outcomes = [failure] * len(operations)
        self._outcomes.update(zip(operations, outcomes, strict=True))


def _size(operation: Operation) -> int:
    images = operation.images or () if isinstance(operation, PutProduct) else ()
    return sum(len(image.data) for image in images)


def _result(operation: Read, outcome: Written | VitrineError, request_id: str) -> OperationResult:
    if isinstance(outcome, VitrineError):
        error = ErrorDetail.model_validate(error_body(outcome, request_id)["error"])
        return OperationResult(product_id=operation.product_id, status=status_of(outcome), error=error)
    if outcome.product is None:
        return OperationResult(product_id=operation.product_id, status=204)
    return OperationResult(
        product_id=operation.product_id,
        status=201 if outcome.created else 200,
        index={model: overall(states) for model, states in outcome.index.items()},
    )
