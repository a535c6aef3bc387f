"""A receiver of OTLP over HTTP on loopback: keeps the spans that a service sends."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class TraceReceiver:
    """Spans by the trace that they belong to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._spans: dict[str, list[Span]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """Keep what was sent."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans[span.trace_id.hex()].append(span)

    def spans(self, trace_id: str) -> list[Span]:
        """Return what has come of a trace."""
        with self._lock:
            return list(self._spans[trace_id])

    @property
    def traces(self) -> set[str]:
        """The traces that spans have come of."""
        with self._lock:
            return {trace for trace, spans in self._spans.items() if spans}


@contextmanager
def trace_receiver() -> Iterator[TraceReceiver]:
    """Listen on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = TraceReceiver(f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
