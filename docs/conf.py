"""Sphinx's settings: Markdown pages, notebooks that are run while the site is built, the reference from docstrings.

Nothing of the site is loaded from elsewhere: no web fonts, no scripts of others; search works from the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from sphinx.application import Sphinx

import xbcompile

project = "xbcompile"
author = copyright = "the xbcompile authors"
version = release = xbcompile.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
nitpicky = False  # types of annotations that are no public names have no page; links of pages are checked all the same
exclude_patterns = ["**.ipynb_checkpoints"]
default_role = "code"  # `name` in a docstring

# Markdown
myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 4
highlight_language = "console"

# Notebooks are kept without outputs, and run here, in the folder that holds `models`.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_in_temp = False
nb_execution_show_tb = True
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))

# The reference
for name in xbcompile.__all__:  # loaded on first use, which autodoc does not wait for
    vars(xbcompile)[name] = getattr(xbcompile, name)
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Pages
html_theme = "furo"
html_title = f"xbcompile {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # browsers fetch no page from the disk
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"


def first_line_alone(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """The page of the package has its own introduction."""
    if name == "xbcompile":
        lines[1:] = []


def setup(app: Sphinx) -> None:
    """See sphinx.application."""
    app.connect("autodoc-process-docstring", first_line_alone)
