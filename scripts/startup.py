"""How long `import ipclab` and `ipclab list` take here, against a bare interpreter: for a human, not for the tests.

    python scripts/startup.py [ROUNDS]

The three are run in turn, so that whatever else the machine does meets all of them alike; the figures are medians.
Aims: `import ipclab` adds at most 10 ms to a bare interpreter, `ipclab list` ends within 400 ms.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 30
IMPORT_MS = 10.0
LIST_MS = 400.0

COMMANDS = {
    "bare": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import ipclab"],
    "list": [sys.executable, "-m", "ipclab", "list"],
}


def once_ms(command: list[str]) -> float:
    """Wall time of one run, from fork to wait."""
    started_ns = time.perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter_ns() - started_ns) / 1e6


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    for command in COMMANDS.values():
        once_ms(command)  # fills the page cache and writes the .pyc files
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            samples[name].append(once_ms(command))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    added_ms = statistics.median(one - bare for one, bare in zip(samples["import"], samples["bare"], strict=True))
    print(f"bare interpreter     {medians['bare']:7.1f} ms   (median of {rounds})")
    print(f"import ipclab adds   {added_ms:7.1f} ms   (aim: at most {IMPORT_MS:g})")
    print(f"ipclab list          {medians['list']:7.1f} ms   (aim: at most {LIST_MS:g})")
    return 0 if added_ms <= IMPORT_MS and medians["list"] <= LIST_MS else 1


if __name__ == "__main__":
    sys.exit(main())
