"""A command's arguments in a TOML file: the same names, checked by the same types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

__all__ = ["merge"]

_HERE = ("config", "json")
"""What belongs to one call and not to a campaign."""


def merge(command: Callable[..., Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Join what was typed with the file that it names; what was typed comes first.

    Args:
        command: Its signature says which arguments there are and of which type; ``name`` may be a
            file that ends in ``.toml``, and ``config`` is one.
        typed: Every argument of it, at its default where nothing was typed.

    Returns:
        Every argument but ``config``; ``name`` is a text.

    Raises:
        UsageError: If the file cannot be read, or holds an argument that is unknown or of another type.
    """
    from nngen.errors import UsageError

    given = dict(typed)
    name: str | None = given["name"]
    config: Path | None = given.pop("config")
    if name is not None and name.endswith(".toml"):
        if config is not None:
            raise UsageError(f"two files were named, {name} and {config}: name one")
        config, name = Path(name), None
    if config is not None:
        found = _read(config, command)
        name = name or found.pop("name", config.stem)
        defaults = {key: item.default for key, item in inspect.signature(command).parameters.items()}
        given |= {key: value for key, value in found.items() if key in given and given[key] == defaults[key]}
    if name is None:
        raise UsageError("the campaign has no name: type one, or a TOML file of arguments")
    return given | {"name": name}


def _read(path: Path, command: Callable[..., Any]) -> dict[str, Any]:
    import tomllib

    from nngen.errors import UsageError
    from nngen.text import did_you_mean

    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    hints = get_type_hints(command, include_extras=False)
    known = [name for name in inspect.signature(command).parameters if name not in _HERE]
    read = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            hint = did_you_mean(name, known, otherwise=f"there are {', '.join(known)}")
            raise UsageError(f"{path}: no argument is called {key}: {hint}")
        read[name] = _value(path, key, value, hints[name])
    return read


def _value(path: Path, key: str, value: Any, hint: Any) -> Any:
    """Bring a TOML value to an argument's type; a list stands for a text with commas."""
    from nngen.errors import UsageError

    kind = next(item for item in get_args(hint) if item is not type(None)) if isinstance(hint, UnionType) else hint
    items = [str(item) for item in value] if isinstance(value, list) else []
    if get_origin(kind) is tuple:
        if isinstance(value, list | str):
            return tuple(items) or ((value,) if value else ())
    elif kind is str and isinstance(value, list):
        return ",".join(items)
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    raise UsageError(f"{path}: {key} must be {names.get(kind, 'a list of texts')}, not {value!r}")
