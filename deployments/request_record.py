"""What is found out about a request while it is answered, for its log line and its metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestRecord:
    """The models that were asked for, each once and in order, and the type of the error in the answer."""

    models: dict[str, None] = field(default_factory=dict)
    error: str | None = None

    @property
    def model(self) -> str:
        """One word for the models: a request may ask for one, for several, or for none."""
        return "several" if len(self.models) > 1 else next(iter(self.models), "none")


_record: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@contextmanager
def recording() -> Iterator[RequestRecord]:
    """Gather in one record what is noted in this block and in all that it starts."""
    record = RequestRecord()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def note_model(name: str) -> None:
    """Note a model that the request asks for; only names of the configuration, so that there are few."""
    if (record := _record.get()) is not None:
        record.models[name] = None


def note_error(kind: str) -> None:
    """Note the type of the error that is answered."""
    if (record := _record.get()) is not None:
        record.error = kind
