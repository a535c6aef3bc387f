"""Memory that is freed is used again, in a process of its own."""

import platform
import subprocess
import sys

import pytest

ROUNDS, MIB = 20, 48
"""More than the 32 MiB up to which glibc keeps memory by itself."""
PAGES = MIB * 2**20 // 4096
FAULTS_OF_ROUNDS = f"""
import resource
import torch
from models.encoder import keep_freed_memory

def one_round():
    torch.ones({MIB} * 2**18)

keep_freed_memory()
for _ in range({ROUNDS}):
    one_round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    one_round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be set to keep memory")
def test_blocks_that_are_freed_cost_no_page_fault_again() -> None:
    faults = int(
        subprocess.run([sys.executable, "-c", FAULTS_OF_ROUNDS], capture_output=True, check=True).stdout
    )
    assert faults < PAGES, f"{ROUNDS} rounds of {PAGES} pages"
