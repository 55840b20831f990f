"""How Sphinx makes the site of ``docs/``; call it by ``make docs``."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
sys.path.insert(0, str(DOCS.parent))

# The usage lines of the verbs must not depend on the terminal that the site is built in.
os.environ["COLUMNS"] = "100"
os.environ["NO_COLOR"] = "1"

project = "segfw"
author = "the segfw contributors"
version = release = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "api", "verbs"]
exclude_patterns = ["_build"]
# Whatever cannot be resolved is a warning, and `make docs` takes warnings for errors.
nitpicky = False

# Links between pages name the file and the heading (`data.md#labels`), so that they work on a forge as well.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

# Code blocks say their language; most are commands and what they print.
highlight_language = "none"

# The API's docstrings say what a function gives; its annotations stand in the signature.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
numpydoc_show_class_members = False
add_module_names = False

html_theme = "furo"
html_title = f"segfw {version}"
html_static_path = ["_static"]
html_css_files = ["segfw.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
