"""Tensors in the safetensors format, written and read one at a time: no second copy of all of them is in memory.

The ``safetensors`` package writes a file from all bytes at once, which a trial near its memory limit does not have.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

_CODES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}
_TYPES = {code: dtype for dtype, code in _CODES.items()}
_LENGTH = struct.Struct("<Q")
_MAX_HEAD = 100_000_000  # bytes of the longest header that the safetensors package reads


def storable(tensor: Tensor) -> bool:
    """Return whether the format has the type and the layout of a tensor."""
    return tensor.dtype in _CODES and tensor.layout is torch.strided and not tensor.is_meta


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[int, Iterator[memoryview]]:
    """Write tensors with a table of texts.

    Args:
        tensors: Tensors by name, on any device; each is ``storable``.
        metadata: Texts by name.

    Returns:
        Number of bytes in all, and the parts of the file in order; each part is made when it is asked for.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)

    def parts() -> Iterator[memoryview]:
        yield memoryview(_LENGTH.pack(len(head)) + head)
        for tensor in tensors.values():
            if tensor.numel():
                yield _bytes_of(tensor)

    return _LENGTH.size + len(head) + end, parts()


def _bytes_of(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return memoryview(plain.reshape(-1).view(torch.uint8).numpy().data)


class TensorFile(Mapping[str, Tensor]):
    """Tensors of an open file, each read when it is asked for.

    Attributes:
        metadata: Texts by name.

    Args:
        file: File at its beginning, which stays open.

    Raises:
        ValueError: If it is not in the format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            if length > _MAX_HEAD:
                raise ValueError("its header is too long")
            table = json.loads(file.read(length))
            self.metadata: dict[str, str] = dict(table.pop("__metadata__", {}))
            self._entries = {
                name: (_TYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
                for name, entry in table.items()
            }
        except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a safetensors file ({error})") from error
        self._start = _LENGTH.size + length

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            ValueError: If the file ends before it, or its size is not that of its shape.
        """
        dtype, shape, begin, end = self._entries[name]
        self._file.seek(self._start + begin)
        data = bytearray(self._file.read(end - begin))
        if len(data) != end - begin:
            raise ValueError(f"the file ends within {name}")
        try:
            return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)
        except RuntimeError as error:
            raise ValueError(f"{name} has another size than its shape") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
