"""Mark of tests that need packages of an extra."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(extra: str, *packages: str) -> pytest.MarkDecorator:
    """Skip tests where a package is missing; none is imported, which would take seconds in each collection."""
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing: pip install '.[{extra}]'")
