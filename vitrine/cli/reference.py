"""Generated part of the page about the command line: `python -m vitrine.cli.reference docs/cli.md`."""

import html
import subprocess
import sys
from pathlib import Path

from vitrine.cli.service import MEANINGS

_MARK = "<!-- generated -->\n"


def filled(page: str) -> str:
    """Replace what stands behind the mark by the exit codes and the help of each command."""
    head, mark, _ = page.partition(_MARK)
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return f"{head}{mark}| exit code | meaning |\n| --- | --- |\n{codes}\n{_commands()}"


def _commands() -> str:
    command = [sys.executable, "-m", "typer", "vitrine.cli.main", "utils", "docs", "--name", "vitrine"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Its own title and its list go: the page has a title, and each command a section.
    _, first, others = html.unescape(done.stdout).partition("## `vitrine ")
    return f"{first}{others.rstrip()}\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(filled(path.read_text()))
