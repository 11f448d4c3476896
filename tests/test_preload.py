"""What workers of curation are forked with: everything they use, nothing that others do, and no thread that a fork would lose."""

import json
import subprocess
import sys

CODE = """
import json, sys, threading
import l3_platform.preload
from l3_platform.dedup import kernels
print(json.dumps([sorted(sys.modules), threading.active_count(), len(kernels.sign.signatures)]))
"""


def test_preloading_compiles_the_kernels_and_leaves_others_libraries_and_threads_out():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    modules, threads, compiled = json.loads(done.stdout)
    heavy = {"torch", "pandas", "matplotlib", "mlflow", "ray", "dagster", "transformers", "sklearn"}
    assert not heavy & set(modules) and threads == 1 and compiled
