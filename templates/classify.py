"""Classification of image files with the model in this folder, by torch, safetensors, numpy and Pillow.

    python classify.py photo.jpg ...

In Python, ``Classifier().classify(["photo.jpg"])`` returns the names of the classes.
"""

import importlib.util
import json
import random
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch.nn.functional import interpolate

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes of one channel with more than 8 bits."""


class Classifier:
    """A trained network in eval mode, with the preparation of its images and the names of its classes.

    Args:
        folder: Folder of ``config.json``; the one of this file by default.
        device: Device that the network runs on.
        onnx: Whether onnxruntime runs ``model.onnx`` in place of the network.
    """

    def __init__(self, folder=None, device="cpu", onnx=False):
        self.folder = Path(folder or Path(__file__).parent)
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.class_names = self.config["class_names"]
        self.device = torch.device(device)
        self.net = self._graph() if onnx else self._network()

    def classify(self, files):
        """Return the name of the most probable class for each image file."""
        return [self.class_names[place] for place in self.probabilities(files).argmax(1).tolist()]

    @torch.no_grad()
    def probabilities(self, files):
        """Return the probability of each class, ``(N, classes)``, for image files."""
        files, size, found = list(files), self.config["batch"], []
        for start in range(0, len(files), size):
            images = np.stack([self.decode(file) for file in files[start : start + size]])
            logits = self.net(self.prepare(torch.from_numpy(images).to(self.device)))
            found.append(logits.float().softmax(1).cpu())
        return torch.cat(found) if found else torch.empty(0, len(self.class_names))

    def decode(self, file):
        """Decode an image file as it is shown: ``(C, H, W)`` uint8 of the size of the training's images."""
        channels, height, width = self.config["image_shape"]
        with Image.open(file) as image:
            if image.format == "JPEG" and min(image.size) > 2048:
                image.draft(image.mode, (1024, 1024))
            image = ImageOps.exif_transpose(image)
            if image.mode in DEEP:
                low, high = self.config["span"]
                values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low)
                scaled = np.rint((values - low) * (255 / max(high - low, 1e-12)))
                image = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))
            elif image.has_transparency_data:
                ground = Image.new("RGBA", image.size, "white")
                ground.alpha_composite(image.convert("RGBA"))
                image = ground
            image = image.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
            return np.array(image).reshape(height, width, channels).transpose(2, 0, 1)

    def prepare(self, images):
        """Convert ``(B, C, H, W)`` uint8 images to the input of the network."""
        mean, std = (torch.tensor(self.config[name], device=images.device) for name in ("mean", "std"))
        batch = (images.float() / 255 - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        channels, *size = self.config["input_shape"]
        if list(batch.shape[2:]) != size:
            shrinks = size[0] < batch.shape[2] or size[1] < batch.shape[3]
            batch = interpolate(batch, size, mode="bilinear", align_corners=False, antialias=shrinks)
        return batch if batch.shape[1] == channels else batch.repeat(1, channels, 1, 1)

    def _network(self):
        config, states = self.config, (random.getstate(), np.random.get_state())
        spec = importlib.util.spec_from_file_location("model", self.folder / config["source"])
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        with torch.random.fork_rng():
            spec.loader.exec_module(module)
            # As in training: a network may use what it draws when it is built, and not keep it among its weights.
            random.seed(config["seeds"]["python"])
            np.random.seed(config["seeds"]["numpy"])
            torch.manual_seed(config["seeds"]["torch"])
            shape = (1, *config["input_shape"])
            net = module.Net(shape, (len(self.class_names),), dict(config["prm"]), self.device).to(self.device)
            if any(map(torch.nn.parameter.is_lazy, net.parameters())):
                net.eval()(torch.zeros(2, *shape[1:], device=self.device))
            net.train_setup(dict(config["prm"]))
        random.setstate(states[0])
        np.random.set_state(states[1])
        # Before the weights: a mixture that averages them exchanges them for the average when its mode changes.
        net.eval()
        state = OrderedDict(load_file(self.folder / "model.safetensors"))
        state._metadata = net.state_dict()._metadata  # versions of modules, which such files do not keep
        net.load_state_dict(state)
        return net

    def _graph(self):
        import onnxruntime

        session = onnxruntime.InferenceSession(self.folder / "model.onnx", providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.cpu().numpy()})[0])


if __name__ == "__main__":
    model = Classifier()
    for file, row in zip(sys.argv[1:], model.probabilities(sys.argv[1:]), strict=True):
        print(file, model.class_names[row.argmax()], f"{row.max():.4f}", sep="\t")
