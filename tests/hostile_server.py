"""A server on loopback that answers with whatever bytes a test wants, and counts who comes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


class HostileServer:
    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        self.connections = 0
        self._behaviours: dict[str, Behaviour] = {}

    def url(self, path: str, host: str = "shop.test", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def behave(self, path: str, behaviour: Behaviour) -> str:
        self._behaviours[path] = behaviour
        return self.url(path)

    def answer(self, path: str, body: bytes = b"", status: str = "200 OK", **headers: str) -> str:
        """Answer with a body; `Content_Length="9"` sets a header, Content-Length is right unless set."""
        fields = {"Content-Length": str(len(body))} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return self.raw(path, f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    def redirect(self, path: str, target: str, status: str = "302 Found") -> str:
        return self.answer(path, status=status, Location=target)

    def raw(self, path: str, data: bytes) -> str:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(data)
            await writer.drain()

        return self.behave(path, send)

    def endless(self, path: str, head: bytes, more: bytes, pause_s: float = 0.0) -> str:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(head)
            for _ in range(100_000):
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(pause_s)

        return self.behave(path, send)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head)
            await self._behaviours[head.split(" ")[1]](writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hostile_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
    server = HostileServer()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
