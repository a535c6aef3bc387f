"""Encoder that does what its text says: wait, die once, stumble, or answer."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ray import serve
from ray.serve import Application

from core.config import Config
from core.types import Encoded, EncoderInfo, EncoderInput


class ObedientArgs(Config):
    """Arguments of the application."""

    name: str
    notes: str


class ObedientEncoder:
    """`wait` takes a minute; `die` ends the process, `die once` only the first one that hears it.

    `stumble` is a bug.
    """

    def __init__(self, args: ObedientArgs) -> None:
        self._notes = Path(args.notes)
        self._info = EncoderInfo(args.name, "fake", "", "0" * 12, 2, ("text",), "fp32", "cpu")

    async def describe(self) -> EncoderInfo:
        """Say which version this is."""
        return self._info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Obey the first input."""
        self._note(f"begun {inputs[0]!r}")
        try:
            await self._obey(inputs[0])
        except asyncio.CancelledError:
            self._note(f"canceled {inputs[0]!r}")
            raise
        self._note(f"answered {inputs[0]!r}")
        return Encoded(self._info, [np.array([1, 0], np.float32) for _ in inputs])

    async def _obey(self, word: EncoderInput) -> None:
        if str(word).startswith("wait"):
            await asyncio.sleep(60)
        elif word == "stumble":
            raise ZeroDivisionError("a bug of the encoder")
        elif word == "die" or (word == "die once" and self._is_first(word)):
            os._exit(1)

    def _is_first(self, word: str) -> bool:
        return self._notes.read_text().splitlines().count(f"begun {word!r}") == 1

    def _note(self, line: str) -> None:
        with self._notes.open("a") as file:
            file.write(line + "\n")


def build_encoder(args: ObedientArgs) -> Application:
    """The configuration asks for two replicas, so that a call can be repeated on the other one."""
    return serve.deployment(ObedientEncoder, name="Encoder").bind(args)
