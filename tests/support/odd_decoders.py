"""Decoders that die, hang or fail, as decode processes get them. They import next to nothing."""

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHAPE = (3, 2, 2)


def obey(image: bytes) -> NDArray[np.uint8]:
    """Do what the image says: a number of 0 to 255 gives pixels, `pid` that of the process, as the first four bytes.

    `once FILE COMMAND` obeys the command where the file is not there, and makes it.
    """
    command, _, rest = image.decode().partition(" ")
    pixels = np.zeros(SHAPE, np.uint8)
    if command == "once":
        file, _, command = rest.partition(" ")
        if Path(file).exists():
            return obey(b"1")
        Path(file).touch()
        return obey(command.encode())
    if command == "pid":
        pixels.reshape(-1)[:4] = np.frombuffer(os.getpid().to_bytes(4), np.uint8)
        return pixels
    if command == "signal":
        os.kill(os.getpid(), int(rest))
    if command == "hang":
        time.sleep(600)
    if command == "touch":
        Path(rest).touch()
        time.sleep(600)
    if command == "bug":
        raise ZeroDivisionError("a bug of ours")
    if command == "odd":
        raise Odd(1, 2)
    if command == "shape":
        return np.zeros((1, 1, 1), np.uint8)
    pixels[:] = int(command)
    return pixels


class Odd(Exception):
    """An error that cannot be loaded from its pickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class NoDecoder:
    """A decoder that cannot be loaded in another process."""

    def __setstate__(self, _state: object) -> None:
        raise RuntimeError("this library is missing")

    def __getstate__(self) -> object:
        return {"any": "state"}
