"""The checks for a GPU go through on a CPU with a small model, and each fails alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import checks
from tests.gpu.checks import CHECKS, Host

HOST = Host("cpu", batches=3, batch=8)
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_goes_through(name: str) -> None:
    found = CHECKS[name][0](HOST)
    assert found.pop("ok"), found
    json.dumps(found)


def test_the_time_in_which_nothing_is_computed_is_idle() -> None:
    timed = checks.Timed(lambda values: values)
    timed.times += [(0.0, 1.0), (1.0, 3.0), (3.5, 4.0)]
    assert timed.idle_share() == pytest.approx(0.5 / 4)


def test_a_check_that_fails_or_hangs_says_so_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {
        "driver": 'print(\'{"ok": true, "rate": 1.23456}\')',
        "threads": "raise ValueError('a bug of ours')",
        "poisoned": "import time; time.sleep(600)",
        "compiled": "",
    }
    monkeypatch.setattr(
        checks, "CHECKS", {name: (lambda _: {}, 0.5 if name == "poisoned" else 30) for name in steps}
    )
    run = subprocess.run

    def instead(command: list[str], **how: object) -> object:
        name = command[command.index("--only") + 1]
        return run([sys.executable, "-c", steps[name]], **how)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", instead)
    monkeypatch.setattr(sys, "argv", ["checks", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        checks.main()
    assert ended.value.code == 1
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert {name: each["ok"] for name, each in found.items()} == {name: name == "driver" for name in steps}
    assert found["threads"]["error"] == "ValueError: a bug of ours"
    assert found["poisoned"]["error"] == "not done after 0 s"
    assert found["compiled"]["error"] == "no output"
    assert [line.split()[:2] for line in table] == [
        [name, "ok" if name == "driver" else "FAILED"] for name in steps
    ]
    assert "rate 1.235" in table[0]


def test_the_script_runs_a_check_without_an_installation(tmp_path: Path) -> None:
    command = [str(ROOT / "tests" / "gpu" / "run.sh"), "--device", "cpu", "--only", "driver"]
    # As on a machine that holds none of ours but what is carried.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"]
    assert list(tmp_path.iterdir()) == []
