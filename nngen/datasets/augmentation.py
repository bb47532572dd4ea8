"""Random changes of training images on their device, one draw per image: mirrored, moved, or by TrivialAugment."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from nngen.types import shift_of


def altered(images: Tensor, augment: str, generator: Generator) -> Tensor:
    """Change ``(B, C, H, W)`` uint8 images before they are resized, by one of ``AUGMENTATIONS``; mirroring is apart."""
    if augment == "crop-flip":
        return _moved(images, generator)
    if augment == "trivial":
        return _trivial(images, generator)
    return images


def mirrored(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image of a batch ``(B, C, H, W)`` with probability one half."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)


def _moved(images: Tensor, generator: Generator) -> Tensor:
    """Move each image by up to an eighth of its sides; what comes in at the border is black."""
    count, channels, height, width = images.shape
    down, right = shift_of(height), shift_of(width)
    padded = pad(images, (right, right, down, down))
    starts = (torch.randint(2 * most + 1, (count, 1), generator=generator) for most in (down, right))
    rows, columns = (
        (start + torch.arange(side)).to(images.device)  # (B, side)
        for start, side in zip(starts, (height, width), strict=True)
    )
    image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]  # (B, C, H, W)


def _trivial(images: Tensor, generator: Generator) -> Tensor:
    from torchvision.transforms.v2 import TrivialAugmentWide

    change = TrivialAugmentWide()
    # torchvision draws from the global generator, whose state is the candidate's own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        return torch.stack([change(image) for image in images])
