"""Whatever happens to the parent of a demo, nothing stays: kill -9 and Ctrl-C at random moments.

    pytest
      a private /dev/shm and private IPC tables, where the machine allows them    (surroundings.py)
        assassin.py, so many times:
          starts a demo, waits a random time, ends its parent
          every process of it is gone; `clean` removes the names, after Ctrl-C there are none
      what is left in /dev/shm, the IPC tables and the temp folder is listed

IPCLAB_KILLS is how often each (default 100), IPCLAB_SEED repeats a run. The moments are printed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import Surroundings

KILLS = int(os.environ.get("IPCLAB_KILLS", "100"))
SEED = int(os.environ.get("IPCLAB_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
#: So many in one program: a failure is then found soon, and what is left has few suspects.
BATCH = 10
#: A demo, its death and the look around take under 3 s on an idle machine; twenty times that.
TIMEOUT_S = 60 * BATCH
ASSASSIN = str(Path(__file__).with_name("assassin.py"))


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize("batch", range(-(-KILLS // BATCH)))
def test_nothing_is_left(how: str, batch: int) -> None:
    place = Surroundings(name="killed")
    program = [sys.executable, ASSASSIN, how, str(SEED + batch), str(min(BATCH, KILLS - batch * BATCH))]
    left: tuple[str, ...] = ()
    if place.obstacle():
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        returncode, text = done.returncode, done.stdout + done.stderr
    else:
        visit = place.run(*program, timeout_s=TIMEOUT_S)
        returncode, text, left = visit.returncode, visit.text, visit.left
    print(text)
    assert returncode == 0, text
    assert left == (), f"left behind: {left}\n{text}"
