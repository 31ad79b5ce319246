"""`python -m ipclab.demos.perform demos/NAME.py`: the demo, as `ipclab demo` starts it.

It runs as it does alone, but for one thing: its parent has blocked SIGINT before the interpreter started, and it is
unblocked only here, where a Ctrl-C is expected. So one that comes while the interpreter starts, while the demo imports
what it needs or while everything ends is as quiet, and ends with the same 130, as one in the middle of the demo, where
its Stage cleans up first.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

from ipclab.processes import procfs

INTERRUPTED = 130


def main() -> int:
    """Run the demo whose path is the first argument; its exit code, or its SystemExit."""
    path = sys.argv[1]
    sys.argv[:] = [path]
    procfs.set_name(Path(path).stem.replace("_", "-"))  # so that a list of processes has the demo's name, not Python's
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, str(Path(path).parent))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        runpy.run_path(path, run_name="__main__")
    except KeyboardInterrupt:
        return INTERRUPTED
    except RuntimeError as err:
        if not isinstance(err.__cause__, KeyboardInterrupt):
            raise
        return INTERRUPTED  # CPython 3.11 wraps a Ctrl-C that comes while a class of some import is being made
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return 0


if __name__ == "__main__":
    sys.exit(main())
