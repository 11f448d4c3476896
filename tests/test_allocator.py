import subprocess
import sys

import pytest

TWICE = """
import resource, sys
import torch
from l3_platform.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(40):  # glibc first fills its small bins with what alignment splits off, which keeps blocks from being joined again
    torch.ones(12 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(12 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_freed_tensor_is_used_again_without_page_faults():
    faults = {way: int(subprocess.check_output([sys.executable, "-c", TWICE, way])) for way in ("kept", "as it comes")}
    assert faults["kept"] < 100 < 4 * 6000 < faults["as it comes"]  # 48 MiB are 12,288 pages
