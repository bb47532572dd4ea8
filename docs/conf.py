"""Settings of the documentation site: ``make docs`` builds it into generated/docs, without a network."""

import sys
from pathlib import Path

import nngen

sys.path.insert(0, str(Path(__file__).parent))

project = "nngen"
author = copyright = "The nngen developers"  # noqa: A001
version = release = nngen.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
templates_path: list[str] = []

# The notebook holds the output of its last run; tests/test_docs.py runs it.
nb_execution_mode = "off"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_use_ivar = True

smartquotes = False  # --size would become a dash
html_theme = "furo"
html_title = f"nngen {release}"
html_static_path: list[str] = []
