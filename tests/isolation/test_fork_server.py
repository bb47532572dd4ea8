"""The fork server while it loads its modules."""

import os
import signal
import time

import psutil
from living import lives

from nngen.training.local_engine import LocalEngine


def test_a_server_that_still_loads_torch_ends_with_its_parent():
    parent = os.fork()
    if parent == 0:
        LocalEngine().warm_up()
        time.sleep(60)
        os._exit(0)
    end = time.monotonic() + 20
    while not (servers := psutil.Process(parent).children()):
        assert time.monotonic() < end
        time.sleep(0.02)
    # Wait until the server imports torch, which it then has mapped.
    while not any("libtorch" in part.path for part in servers[0].memory_maps()):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    killed = time.monotonic()
    while lives(servers[0]):
        assert time.monotonic() < killed + 10
        time.sleep(0.01)
