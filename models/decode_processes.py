"""Decoding of images in processes beside the one that runs a model.

Threads would share one interpreter lock with the model. Decoded pixels come back in shared memory, in slots of the
size of one model input, so memory is bounded by their number.

A fork server loads the libraries once and forks the workers: PyTorch alone takes 390 MB and 3 s, and a worker that
is forked shares that memory. The fork server ends when its connection closes, and the kernel ends the workers with
it. The shared memory has no name. So nothing is left behind, however the model's process ends.

`multiprocessing` is not used for this. Its fork server imports the main module of the parent in each worker, which
in a replica is Ray's, and its pools fail or lose all tasks when one worker dies.
"""

import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import InvalidImage, ModelUnavailable, Overloaded
from core.types import ImageInput
from models.images import PATIENCE_S, no_memory

Pixels = NDArray[np.uint8]
Decode = Callable[[ImageInput], Pixels]
"""Turns an image into model input; it is sent by pickle, and may raise anything."""
LONGEST_S = 60.0
"""Longest time to decode one image, in seconds; a worker that takes longer is ended."""
START_S = 120.0
"""Longest start of the fork server, in seconds."""
_END_S = 10.0
LENGTH = 4
"""Bytes of the length before a message."""
_REPLY_BYTES = 2**16
_log = logging.getLogger(__name__)


class Slots:
    """Shared memory for `count` model inputs, of which each comes back when nobody holds its pixels any more."""

    def __init__(self, shape: tuple[int, ...], count: int, file: int | None = None) -> None:
        """`file` is the file of memory that another process has made; without it, memory is allocated."""
        self.shape, self.count = shape, count
        self._bytes = int(np.prod(shape))
        self.file = os.memfd_create("decoded images") if file is None else file
        if file is None:
            os.ftruncate(self.file, count * self._bytes)
        weakref.finalize(self, os.close, self.file)
        memory = mmap.mmap(self.file, count * self._bytes)
        self.rows: Pixels = np.frombuffer(memory, np.uint8).reshape(count, *shape)
        self._address = self.rows.ctypes.data
        # Its `put` may be called from a destructor, that of other queues may not.
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(count):
            self._free.put(number)

    @property
    def free(self) -> int:
        """How many slots can be taken now."""
        return self._free.qsize()

    def take(self, timeout_s: float) -> "Slot":
        """Wait for a free slot.

        Raises:
            Overloaded: none came back in time.
        """
        try:
            return Slot(self, self._free.get(timeout=timeout_s))
        except Empty:
            raise Overloaded("too many decoded images wait for the model; try again shortly") from None

    def give_back(self, number: int) -> None:
        """Let the slot be taken again."""
        self._free.put(number)

    def place(self, number: int) -> dict[str, Any]:
        """Describe the memory of a slot by numpy's array interface."""
        start = self._address + number * self._bytes
        return {"shape": self.shape, "typestr": "|u1", "data": (start, False), "version": 3}


class Slot:
    """A slot that is taken. Arrays made of it, and their views, keep it; then it goes back by itself."""

    __slots__ = ("__array_interface__", "_slots", "number")

    def __init__(self, slots: Slots, number: int) -> None:
        self.number, self._slots = number, slots
        self.__array_interface__ = slots.place(number)

    def __del__(self) -> None:
        self._slots.give_back(self.number)


class DecodeProcesses:
    """Decodes images in `count` worker processes; at most as many calls may be under way, of any thread."""

    def __init__(self, decode: Decode, slots: Slots, count: int, longest_s: float = LONGEST_S) -> None:
        """Start the processes; a worker that decodes an image for longer than `longest_s` is ended.

        Raises:
            ModelUnavailable: they do not start.
        """
        self._server = _Server(decode, slots, longest_s)
        self._slots, self.count = slots, count
        self._idle: SimpleQueue[socket.socket | None] = SimpleQueue()
        """Workers that nobody uses; None in place of one that could not be had."""
        for _ in range(count):
            self._idle.put(self._server.fork())
        self._end = weakref.finalize(self, _end, self._server, self._idle)

    def close(self) -> None:
        """End the processes, whatever they do; this happens too when nobody has this object any more."""
        self._end()

    def decode(self, images: Sequence[ImageInput]) -> list[Pixels | Exception]:
        """Decode images one after the other in one worker: the pixels or an error of each, in order.

        Where the worker dies, each image is tried once more, and alone.
        """
        outcomes = self._run(images)
        if not isinstance(outcomes, int):
            return outcomes
        if len(images) == 1 and outcomes == -signal.SIGALRM:
            return [_fatal(outcomes)]
        alone = [self._run([image]) for image in images]
        return [_fatal(each) if isinstance(each, int) else each[0] for each in alone]

    def _run(self, images: Sequence[ImageInput]) -> list[Pixels | Exception] | int:
        """Return the outcome of each image, or the exit status of a worker that has died."""
        worker = self._idle.get()
        try:
            if worker is None or not _is_alive(worker):
                worker = self._server.fork(worker)
            until = monotonic() + PATIENCE_S
            slots = [self._slots.take(max(0.0, until - monotonic())) for _ in images]
            reply = _ask(worker, slots, images)
            if isinstance(reply, int):
                worker.close()
                worker = None
                return reply
            return [
                np.asarray(slot) if each is None else each for slot, each in zip(slots, reply, strict=True)
            ]
        except Exception as error:
            return [error] * len(images)
        finally:
            self._idle.put(worker)


def _is_alive(worker: socket.socket) -> bool:
    """Say whether a worker is there that has nothing to do: its end can be read."""
    try:
        worker.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _end(server: "_Server", idle: "SimpleQueue[socket.socket | None]") -> None:
    server.close()
    with suppress(Empty):
        while True:
            if worker := idle.get_nowait():
                worker.close()


def _ask(
    worker: socket.socket, slots: Sequence[Slot], images: Sequence[ImageInput]
) -> list[Exception | None] | int:
    """Have a worker decode images into slots: None or an error of each, or the exit status of the worker."""
    files = [image if isinstance(image, bytes) else image.data for image in images]
    boxes = [None if isinstance(image, bytes) else image.box for image in images]
    task = pickle.dumps(
        [(slot.number, len(data), box) for slot, data, box in zip(slots, files, boxes, strict=True)]
    )
    # Where it has ended, the reason can be read all the same.
    with suppress(OSError):
        # Megabytes of files are not copied into one message: that would hold the interpreter's lock.
        _send(worker, [len(task).to_bytes(LENGTH), task, *files])
    try:
        # One call as a rule: each one waits for the lock of the interpreter.
        reply = worker.recv(_REPLY_BYTES)
        while len(reply) < LENGTH or len(reply) < LENGTH + int.from_bytes(reply[:LENGTH]):
            if not (part := worker.recv(_REPLY_BYTES)):
                raise EOFError
            reply += part
    except (EOFError, OSError):
        # The fork server has ended, and its workers with it.
        return -signal.SIGKILL
    found: list[Exception | None] | int = pickle.loads(reply[LENGTH:])
    return [None] * len(images) if found == [] else found


def _send(to: socket.socket, parts: Sequence[bytes]) -> None:
    sent = to.sendmsg(parts)
    for part in parts:
        # A signal may have come in between.
        if sent < len(part):
            to.sendall(memoryview(part)[sent:])
        sent = max(0, sent - len(part))


class _Server:
    """The fork server, started again when it has died."""

    def __init__(self, decode: Decode, slots: Slots, longest_s: float) -> None:
        self._decode, self._slots, self._longest_s = decode, slots, longest_s
        self._lock, self._is_closed = threading.Lock(), False
        self._start()

    def fork(self, dead: socket.socket | None = None) -> socket.socket:
        """Return the connection to a new worker, in place of one that has died.

        Raises:
            ModelUnavailable: the fork server does not start.
        """
        if dead is not None:
            dead.close()
        ours, theirs = socket.socketpair()
        with ours, theirs, self._lock:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError:
                self._stop()
                self._start()
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            return ours.dup()

    def close(self) -> None:
        """End the fork server and its workers for good."""
        with self._lock:
            self._is_closed = True
            self._stop()

    def _start(self) -> None:
        if self._is_closed:
            raise ModelUnavailable("this replica ends")
        self._control, theirs = socket.socketpair()
        with theirs:
            files = (theirs.fileno(), self._slots.file)
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from models.decode_workers import serve; serve{files}"],
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                # A worker uses one core, and never the GPU.
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
                | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._stop = partial(_stop, self._control, process)
        self._control.settimeout(START_S)
        try:
            job = (self._decode, self._slots.shape, self._slots.count, self._longest_s)
            self._control.sendall(pickle.dumps(job))
            ready = self._control.recv(1)
        except OSError:
            ready = b""
        if not ready:
            self._stop()
            raise ModelUnavailable("the processes that decode images do not start; the log holds the reason")
        self._control.settimeout(None)


def _stop(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fatal(status: int) -> Exception:
    """Return the error of an image that ended its worker."""
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    _log.error("an image ended the process that decoded it (%s)", name)
    if status == -signal.SIGKILL:
        # As the kernel does where memory is short.
        return no_memory()
    if status == -signal.SIGALRM:
        return InvalidImage("the image takes too long to decode; save it anew, and smaller")
    return InvalidImage(f"the image is damaged: it ends the process that decodes it ({name})")
