"""How the documentation is built; `make docs` builds it strictly."""

import re
from pathlib import Path

_ROOT = Path(__file__).parent.parent

project = "steer"
author = "the steer contributors"
copyright = "the steer contributors, Apache-2.0"
release = re.search(r'__version__ = "(.+)"', (_ROOT / "steer/__init__.py").read_text()).group(1)

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = "off"  # `make notebook` runs them; here their stored outputs are shown

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"steer {release}"
html_static_path = ["_static"]
html_css_files = ["steer.css"]
html_show_sphinx = False
html_show_copyright = False


def _code(app, what, name, obj, options, lines):
    """Read `code` in docstrings as Markdown does."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)", _literal, line) for line in lines]


def _literal(match):
    return f"``{match[1].strip()}``"


def _copy_notebooks():
    """Put the notebooks where pages can be, with links as they are from there."""
    for path in sorted((_ROOT / "notebooks").glob("*.ipynb")):
        page = Path(__file__).parent / "notebooks" / path.name
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](../")
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


_copy_notebooks()


def setup(app):
    app.connect("autodoc-process-docstring", _code, priority=900)
