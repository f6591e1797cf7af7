"""Points a second and peak memory of the dataset builder with the rule-based teacher.

    python benchmarks/build_speed.py --config examples/build_llama_point_in_part.yaml --root DATA --num_proc 2

Builds into a temporary folder. The memory is that of the largest single process.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datasets import load_dataset_builder

ROOT = Path(__file__).parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "examples" / "build_llama_point_in_part.py"),
            *sys.argv[1:],
            "--output_dir",
            folder,
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        builder = load_dataset_builder(folder, cache_dir=folder + "/cache")
        builder.download_and_prepare()
        rows = sum(split.num_examples for split in builder.info.splits.values())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{rows} rows in {seconds:.0f} s: {rows / seconds:.0f} rows a second, {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
