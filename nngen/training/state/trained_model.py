"""A trained network in this process, with the preparation of its images and the names of its classes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import build_net, load_module, set_up
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed
from nngen.datasets.batches import Preparation
from nngen.errors import DataError
from nngen.seeds import derive
from nngen.text import one_line
from nngen.training.inference import KeptWeights
from nngen.training.state.net_state import load_weights
from nngen.training.state.tensor_file import TensorFile


class TrainedModel(nn.Module):
    """A candidate's network with trained weights, in eval mode.

    Attributes:
        net: The network; its input is prepared.
        prepare: Conversion of ``(B, C, H, W)`` uint8 images of ``preprocessing.image_shape`` to the network's input.
        preprocessing: The same as a value that can be stored.
        class_names: Names of the classes in the order of the logits.

    Args:
        source: Source of the candidate, which is run here.
        kept: Its weights.
        device: Device that the network is moved to.

    Raises:
        DataError: If the weights are not those of the source, or cannot be read.
    """

    def __init__(self, source: str, kept: KeptWeights, device: str = "cpu") -> None:
        super().__init__()
        order, place = kept.order, torch.device(device)
        self._kept = kept
        self.preprocessing = kept.preprocessing
        self.class_names = kept.preprocessing.class_names
        self.prepare = Preparation(shape=order.shape, mean=order.mean, std=order.std)
        prm = make_prm(order.hyperparameters, shape=order.shape, augment=order.augment)
        states = random.getstate(), np.random.get_state()
        try:
            # By the seed of the training, for values that a network draws and does not keep among its weights.
            with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), kept.file.open("rb") as file:
                random.seed(derive(order.seed, "python"))
                np.random.seed(derive(order.seed, "numpy"))
                torch.manual_seed(derive(order.seed, "torch"))
                path = Path(folder) / "candidate.py"
                path.write_text(source, encoding="utf-8")
                module = load_module(path, f"nngen_model_{id(self)}")
                net = build_net(module, path, shape=order.shape, classes=order.classes, prm=dict(prm), device=place)
                set_up(net, path, dict(prm))
                load_weights(net, TensorFile(file), order.shape)
        except CheckFailed as failure:
            raise DataError(f"the network cannot be built: {failure.verdict.message}") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{kept.file} cannot be loaded: {one_line(str(error))}") from error
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
        self.net = net
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, ``(B, classes)``, of ``(B, C, H, W)`` uint8 images."""
        logits: Tensor = self.net(self.prepare(images))
        return logits

    @torch.no_grad()
    def probabilities(self, files: Sequence[Path | str]) -> Tensor:
        """Return the probability of each class, ``(N, classes)``, for image files.

        Raises:
            DataError: If one cannot be read.
        """
        device = next(self.net.parameters()).device
        images = np.stack([self._kept.image(Path(file)) for file in files])
        logits: Tensor = self(torch.from_numpy(images).to(device))
        return logits.float().softmax(1)

    def classify(self, files: Sequence[Path | str]) -> list[str]:
        """Return the name of the most probable class for each image file.

        Raises:
            DataError: If one cannot be read.
        """
        return [self.class_names[place] for place in self.probabilities(files).argmax(1).tolist()]
