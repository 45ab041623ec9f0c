"""Builds the documentation: sphinx-build -W docs docs/build."""

from __future__ import annotations

import sys
from pathlib import Path

from nisampler import __version__

sys.path.insert(0, str(Path(__file__).parent))  # for generated.py

project = "nisampler"
author = "the authors of nisampler"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["build"]
suppress_warnings = ["ref.python"]  # a word in backticks may be the name of several things
if tags.has("quick"):  # noqa: F821 - Sphinx gives it; `-t quick` leaves out the API
    exclude_patterns.append("reference/api/*")
    suppress_warnings.append("toc.excluded")

# Headings can be linked to, up to the third level.
myst_heading_anchors = 3

# The reference. Single backticks in docstrings are code, and a link where they name something that is in the reference.
default_role = "py:obj"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
napoleon_google_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"nisampler {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["style"]
html_css_files = ["pages.css"]
smartquotes = False
