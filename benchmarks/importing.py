"""How long `import routedk_lite` takes in a fresh interpreter, the interpreter's own start subtracted.

python benchmarks/importing.py --rounds 11
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median


def seconds(statement: str) -> float:
    """Wall time of a fresh interpreter that runs one statement."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    light = "import routedk_lite.data.sessions, routedk_lite.data.metrics, routedk_lite.study.records"
    for statement in ("import routedk_lite", light):
        found = [seconds(statement) - seconds("pass") for _ in range(rounds)]
        print(f"{statement}: median {median(found):.3f} s, slowest {max(found):.3f} s over {rounds} rounds")


if __name__ == "__main__":
    main()
