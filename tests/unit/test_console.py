"""What commands print is never cut: piped it is as wide as it needs, on a terminal it is folded."""

import io

import pytest
from rich.console import Console

from cli.connection import Service
from cli.tables import table

LONG = "0123456789" * 30
COLUMNS = ("version", "device", "checkpoint")
ROWS = [(LONG, "cpu", f"/srv/weights/{LONG}")]


def test_a_long_id_is_whole_when_piped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    Service().show({}, lambda: table(COLUMNS, ROWS, title=f"collection_{LONG}"))
    title, _, row = capsys.readouterr().out.splitlines()
    assert title == f"collection_{LONG}"
    assert row.split() == [LONG, "cpu", f"/srv/weights/{LONG}"]


def test_a_long_id_is_folded_on_a_terminal() -> None:
    terminal = io.StringIO()
    Console(file=terminal, width=40).print(table(("job",), [(LONG,)]))
    assert "".join(terminal.getvalue().split()) == f"job{LONG}"
