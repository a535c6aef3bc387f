"""Fenced code blocks of a page, and a shell that runs them."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.children import shown_on_failure

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
README_URL = "http://localhost:8000"


@dataclass(frozen=True, slots=True)
class CodeBlock:
    language: str
    text: str


def code_blocks(page: str) -> list[CodeBlock]:
    """All code blocks of a page of the repository, in their order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [CodeBlock(language, text) for language, text in found]


def run_blocks(blocks: list[str], url: str, scratch: Path, timeout_s: float) -> list[str]:
    """Run blocks in one shell at the root of the repository, against the service at `url`; what each has printed.

    The first command that fails ends it.
    """
    mark = "--- the next block ---"
    script = f"\necho '{mark}'\n".join(blocks)
    for written, meant in (
        (README_URL, url),
        (README_URL.removeprefix("http://"), url.removeprefix("http://")),
        ("$PWD/.venv/bin", str(BIN)),
        (".venv/bin/", f"{BIN}/"),
    ):
        script = script.replace(written, meant)
    with shown_on_failure(scratch / "output"), (scratch / "output").open("w+") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(scratch), "VITRINE_URL": url, "COLUMNS": "200"},
            stdout=output,
            stderr=subprocess.STDOUT,
            # What a block has left running ends with the shell.
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        reported = (scratch / "output").read_text()
    assert code == 0, reported
    return reported.split(f"{mark}\n")
