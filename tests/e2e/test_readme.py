"""The calls that the README shows work as written."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from demo.service import DemoService

ROOT = Path(__file__).parents[2]


def test_the_curl_calls_of_the_readme_work_as_written(service: DemoService) -> None:
    readme = (ROOT / "README.md").read_text()
    calls = [block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if block.startswith("curl")]
    assert len(calls) == 3
    answers = [
        _run(call.replace("localhost:8000", service.base_url.removeprefix("http://"))) for call in calls
    ]
    assert "dress" in answers[0]["results"][0]["product"]["title"]
    assert {model["state"] for model in answers[1]["index"].values()} == {"indexed"}
    assert len(answers[2]["results"]) == 3
    assert answers[2]["results"][0]["product"]["attributes"]["colour"] == "green"


def _run(command: str) -> dict[str, Any]:
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    content: dict[str, Any] = json.loads(done.stdout)
    return content
