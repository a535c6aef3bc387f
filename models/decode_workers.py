"""What runs in the processes that decode images: a fork server, and the workers that it forks.

It imports what decoding needs, and no Ray.
"""

import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from core.errors import VitrineError
from core.types import Cropped, ImageInput
from models.decode_processes import LENGTH, Decode, Pixels, Slots

_PR_SET_PDEATHSIG = 1


def serve(control: int, memory: int) -> NoReturn:
    """Fork workers in a process of its own until the connection is closed; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The thread that started this process may have blocked or ignored what ends workers and reports their end.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    connection = socket.socket(fileno=control)
    try:
        with connection.makefile("rb") as stream:
            decode, shape, count, longest_s = pickle.load(stream)
        _serve(connection, _Job(decode, Slots(shape, count, memory), longest_s))
    except EOFError:
        pass
    except Exception:
        traceback.print_exc()
    # The kernel ends the workers. Nothing is to be tidied up that could wait for them.
    os._exit(0)


@dataclass(frozen=True, slots=True)
class _Job:
    decode: Decode
    slots: Slots
    longest_s: float


def _serve(control: socket.socket, job: _Job) -> None:
    # Objects that are alive now stay on pages that the workers share.
    gc.collect()
    gc.freeze()
    ended, end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    signal.set_wakeup_fd(end)
    workers: dict[int, socket.socket] = {}
    control.send(b"+")
    while True:
        waiting: list[Any] = [control, ended]
        ready, _, _ = select.select(waiting, [], [])
        if ended in ready:
            os.read(ended, 1024)
            _reap(workers)
        if control in ready:
            message, files, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                raise EOFError
            worker, server = socket.socket(fileno=files[0]), os.getpid()
            if not (pid := os.fork()):
                for each in (control, *workers.values()):
                    each.close()
                _work(worker, server, job)
            workers[pid] = worker


def _reap(workers: dict[int, socket.socket]) -> None:
    """Tell the other side of each worker that has ended how it did."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = found
            with workers.pop(pid) as worker, suppress(OSError):
                _reply(worker, os.waitstatus_to_exitcode(status))


def _reply(to: socket.socket, reply: object) -> None:
    message = pickle.dumps(reply)
    to.sendall(len(message).to_bytes(LENGTH) + message)


def _work(connection: socket.socket, server: int, job: _Job) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The server may have ended before the kernel was asked.
    with suppress(EOFError, OSError), connection.makefile("rb") as stream:
        while os.getppid() == server:
            task = pickle.loads(_read(stream, int.from_bytes(_read(stream, LENGTH))))
            images = [(number, _read(stream, length), box) for number, length, box in task]
            errors = list[Exception | None]()
            for number, data, box in images:
                image = data if box is None else Cropped(data, box)
                # The default action of the signal ends the process, also in the midst of a library's C code.
                signal.setitimer(signal.ITIMER_REAL, job.longest_s)
                errors.append(_decode_into(job.slots.rows[number], job.decode, image))
                signal.setitimer(signal.ITIMER_REAL, 0)
            _reply(connection, errors if any(errors) else [])
    os._exit(0)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _decode_into(row: Pixels, decode: Decode, image: ImageInput) -> Exception | None:
    try:
        pixels = decode(image)
        if pixels.shape != row.shape or pixels.dtype != row.dtype:
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not {row.dtype} {row.shape}")
        row[:] = pixels
    except Exception as error:
        return _portable(error)
    return None


def _portable(error: Exception) -> Exception:
    """Return an error that another process can load, with its traceback where that will be logged."""
    note = "" if isinstance(error, VitrineError) else traceback.format_exc()
    try:
        copied: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        copied = RuntimeError(f"{type(error).__name__}: {error}")
    if note:
        copied.add_note(note)
    return copied
