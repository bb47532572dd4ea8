"""Predictions with the weights that a trial kept: the files of its folder, and a worker that computes logits.

The code of a candidate runs in a worker as it does in training; ``trained_model`` runs it in this process instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from nngen.datasets.image_files.decoding import ImageFiles, check_room, decode_files, remove_images
from nngen.datasets.image_files.image_file import decode
from nngen.datasets.preprocessing import Preprocessing
from nngen.datasets.source import Progress
from nngen.errors import DataError, NngenError
from nngen.files import load_json
from nngen.isolation import Frame, FrameError, Isolation, Job, JobRunner, Limits
from nngen.training.frames import FrameKind, last_line
from nngen.training.orders import TrainOrder
from nngen.training.scoring import read_verdict, verdict_of_result
from nngen.training.state.artifacts import MAX_PART, ArtifactRequest
from nngen.training.state.checkpoints import CONFIG, WEIGHTS
from nngen.types import Verdict

_BYTES_PER_LOGIT = 4
_WORKER = "nngen.training.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWeights:
    """Weights of a trial with all that is needed to use them."""

    file: Path  # state dictionary as safetensors
    order: TrainOrder  # settings that the net was trained by
    preprocessing: Preprocessing  # conversion of images to the net's input, and the names of its classes

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the folder of a trial (``TrialFolder``).

        Raises:
            DataError: If a file is missing or damaged.
        """
        config, file = load_json(folder / CONFIG), folder / f"{WEIGHTS}.safetensors"
        if not file.is_file():
            raise DataError(f"{file} is missing")
        try:
            order = TrainOrder.from_json(config["order"])
            return cls(file=file, order=order, preprocessing=Preprocessing.from_dict(config))
        except (LookupError, TypeError, ValueError, AttributeError, NngenError) as error:
            raise DataError(f"{folder / CONFIG} is missing or damaged: {error}") from error

    def decode(self, files: Sequence[Path], out: Path, progress: Progress | None = None) -> dict[Path, str]:
        """Decode image files to the form of the training's images, and write them to ``out`` as one ``.npy`` array.

        Args:
            files: Files of images.
            out: Path to write ``(N, C, H, W)`` uint8 to; images that cannot be read are left out.
            progress: Receives (done, total).

        Returns:
            Reason of each image that cannot be read, by its file.

        Raises:
            DataError: If the folder of ``out`` has no room for the images.
        """
        shape, report = self.preprocessing.image_shape, progress or (lambda *_: None)
        size, span = (shape.width, shape.height), self.preprocessing.span
        images = ImageFiles(files=files, size=size, grey=shape.channels == 1, span=span)
        check_room(out.parent, math.prod(images.shape))
        faults = decode_files(images, out, lambda done: report(done, len(files))).faults
        remove_images(out, faults)
        return {files[place]: reason for place, reason in faults.items()}

    def image(self, file: Path) -> npt.NDArray[np.uint8]:
        """Decode an image file to the form of the training's images, ``(C, H, W)`` uint8.

        Raises:
            DataError: If it cannot be read.
        """
        shape = self.preprocessing.image_shape
        grey = shape.channels == 1
        return decode(file, (shape.width, shape.height), grey=grey, span=self.preprocessing.span)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictJob:
    """Images to predict."""

    source: str  # source of the candidate
    kept: KeptWeights  # weights
    images: Path  # file of ``(N, C, H, W)`` uint8, an ``.npy`` array
    count: int  # number of images
    device: str = "cpu"  # ``cpu`` or ``cuda``
    threads: int = 1  # CPU threads of the worker
    time_limit_s: float = 3600.0  # limit in seconds
    memory_mib: int = 12_288  # limit on resident memory, in MiB
    isolation: Isolation  # isolation level of the worker
    artifacts: ArtifactRequest | None = None  # files to take from the net with its weights; None for none
    metadata: Mapping[str, str] = field(default_factory=dict)  # texts by name that these files carry


def predict_logits(job: PredictJob) -> npt.NDArray[np.float32]:
    """Compute the logits of images in a worker.

    Returns:
        Logits, ``(N, classes)``.

    Raises:
        DataError: If the weights are of another file, or the net cannot predict.
        NngenError: If no worker can be started.
    """
    wanted = job.artifacts
    order = replace(
        job.kept.order,
        device=job.device,
        threads=job.threads,
        artifacts=wanted.names if wanted else (),
        metadata=job.metadata,
        compiled=False,
        done=0,
    )
    size = _BYTES_PER_LOGIT * job.count * order.classes
    found: list[bytes | Verdict] = []
    lines = last_line(job.source)

    def take(frame: Frame, _seconds: float) -> bool:
        if frame.kind == FrameKind.OUTPUTS:
            found.append(frame.body)
            return True
        if frame.kind == FrameKind.FILE and wanted is not None:
            wanted.append(frame.body)
            return False
        message = frame.message()
        if message.get("event") == "verdict":
            found.append(read_verdict(message, lines))
        elif message.get("event") in ("file", "no-file") and wanted is not None:
            wanted.announce(message)
        elif message.get("event") != "ready":
            raise FrameError("a message out of order")
        return bool(found)

    frames: dict[int, range] = {FrameKind.OUTPUTS: range(size, size + 1)}
    if wanted is not None:
        wanted.clear(job.memory_mib)
        frames[FrameKind.FILE] = range(MAX_PART + 1)
    work = Job(
        entry_point=f"{_WORKER}:predict",
        arguments=order.to_json(),
        limits=Limits(time_limit_s=job.time_limit_s, memory_mib=job.memory_mib),
        isolation=job.isolation,
        source=job.source,
        files=[job.images, job.kept.file],
        frames=frames,
        cuda=job.device != "cpu",
    )
    with JobRunner((_WORKER,)) as runner:
        result = runner.run(work, take)
    answer = found[0] if found else verdict_of_result(result, lines)
    if isinstance(answer, Verdict):
        raise DataError(f"no prediction with {job.kept.file}: {answer.outcome}: {answer.message}")
    return np.frombuffer(answer, "<f4").reshape(job.count, order.classes)
