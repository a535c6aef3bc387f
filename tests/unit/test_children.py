"""Child processes keep their output also where no pytest runs, as in benchmarks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from tests.support.children import Child

child = Child("greeting", [sys.executable, "-c", "print('hello')"])
child.wait()
print(child.output_file, child.output())
"""


def test_a_benchmark_keeps_the_output_of_its_children_until_it_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT
    )
    file, output = done.stdout.split()
    assert output == "hello"
    assert not Path(file).parent.exists()
