"""Rule ``forbidden``: the source does not use processes, the network, files or other code.

The rule tells an author early and is not a protection: the worker's limits hold for what a source hides from it.
Plain ``import os`` and ``import gc`` pass: 1,600 of LEMUR's files have them and do no harm with them.
"""

from __future__ import annotations

import ast

from nngen.checks.rule import Invalid, StaticRule, fail
from nngen.checks.source import Source
from nngen.types import Outcome

_MODULES = """
_ctypes _posixsubprocess _socket _thread aiohttp asyncio builtins cffi cloudpickle code codeop concurrent ctypes dill
fcntl ftplib http httpx huggingface_hub imaplib importlib marshal mmap multiprocessing pickle poplib posix psutil pty
requests resource runpy sched select selectors shelve shutil signal smtplib socket socketserver sqlite3 ssl subprocess
telnetlib tempfile threading urllib urllib3 webbrowser xmlrpc
"""
_CALLS = """
eval exec compile __import__ open input breakpoint
os.abort os.chdir os.chmod os.chown os.chroot os.dup os.dup2 os.fork os.forkpty os.kill os.killpg os.link os.listdir
os.makedirs os.memfd_create os.mkdir os.open os.pipe os.popen os.posix_spawn os.posix_spawnp os.putenv os.remove
os.removedirs os.rename os.replace os.rmdir os.scandir os.setsid os.symlink os.system os.truncate os.unlink os.walk
os.write
torch.load torch.save torch.hub.load torch.hub.load_state_dict_from_url torch.hub.download_url_to_file
torch.utils.model_zoo.load_url torch.ops.load_library torch.classes.load_library
numpy.load numpy.save numpy.fromfile numpy.memmap
"""

MODULES = frozenset(_MODULES.split())
"""Modules that no image classifier needs, by their top-level name."""

CALLS = frozenset(_CALLS.split())
"""Functions that are refused, by their full names, however they were imported."""

_HARMLESS = frozenset(
    f"torch.distributed.{name}"
    for name in "is_available is_initialized get_rank get_world_size all_reduce all_gather broadcast barrier".split()  # noqa: SIM905
)
"""Questions about a group of processes, and calls that fail without one; ``init_process_group`` makes it."""

_PREFIXES = ("os.exec", "os.spawn", "torch.utils.cpp_extension.", "torch.distributed.", "torch.multiprocessing.")


class Forbidden(StaticRule):
    """Refuses a source that uses one of the modules and functions listed above."""

    name = "forbidden"
    order = 20
    VALID = (
        "import os\nimport math\nimport torch.nn as nn\n",
        "import torch\nmodel = torch.nn.Linear(1, 1)\nmodel.eval()\nmodel.compile()\n",
        "import os\nname = os.path.join('a', 'b')\n",
        "def compile(x):\n    return x\ncompile(3)\n",
        "from torch.utils import checkpoint\n",
        "import torch.distributed as dist\nfirst = not dist.is_initialized() or dist.get_rank() == 0\n",
    )
    INVALID = (
        Invalid(source="x = 1\nimport subprocess\n", message="subprocess", outcome=Outcome.FORBIDDEN, line=2),
        Invalid(source="from socket import socket\n", message="socket", outcome=Outcome.FORBIDDEN, line=1),
        Invalid(source="import ctypes as c\n", message="ctypes", outcome=Outcome.FORBIDDEN, line=1),
        Invalid(source="import urllib.request\n", message="urllib", outcome=Outcome.FORBIDDEN, line=1),
        Invalid(source="import os as o\no.system('ls')\n", message="os.system", outcome=Outcome.FORBIDDEN, line=2),
        Invalid(source="from os import execv\nexecv('a', [])\n", message="os.execv", outcome=Outcome.FORBIDDEN, line=2),
        Invalid(source="from os import system as f\nf('ls')\n", message="os.system", outcome=Outcome.FORBIDDEN, line=2),
        Invalid(source="eval('1')\n", message="eval", outcome=Outcome.FORBIDDEN, line=1),
        Invalid(source="def f():\n    exec('1')\n", message="exec", outcome=Outcome.FORBIDDEN, line=2),
        Invalid(source="import torch\ntorch.load('x')\n", message="torch.load", outcome=Outcome.FORBIDDEN, line=2),
        Invalid(
            source="import torch.distributed as dist\ndist.init_process_group()\n",
            message="torch.distributed.init_process_group",
            outcome=Outcome.FORBIDDEN,
            line=2,
        ),
        Invalid(source="__import__('os')\n", message="__import__", outcome=Outcome.FORBIDDEN, line=1),
    )

    def check(self, source: Source) -> None:
        found = [hit for node in source.nodes for hit in self._look(source, node)]
        if found:
            line, what = min(found)
            raise fail(Outcome.FORBIDDEN, self.name, f"{what} is not allowed in a candidate: remove it", line=line)

    def _look(self, source: Source, node: ast.AST) -> list[tuple[int, str]]:
        match node:
            case ast.Import(names=names):
                return [(node.lineno, f"import {a.name}") for a in names if a.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module), level=0) if module.partition(".")[0] in MODULES:
                return [(node.lineno, f"from {module} import")]
            case ast.Call(func=ast.Name(id=name)) if name in source.defined:
                return []
            case ast.Call(func=func):
                full = source.dotted(func)
                if full is not None and full not in _HARMLESS and (full in CALLS or full.startswith(_PREFIXES)):
                    return [(node.lineno, f"{full}(...)")]
        return []
