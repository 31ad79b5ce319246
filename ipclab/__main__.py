"""`python -m ipclab` is `ipclab`."""

from __future__ import annotations

import sys

from ipclab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
