"""Settings of the documentation site: ``sphinx-build -W --keep-going docs SITE``. Nothing is fetched, neither here nor by the pages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from posepipe import __version__

project = "posepipe"
author = "the authors of posepipe"
copyright = "the authors of posepipe, MIT licence"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "api_pages", "command_options"]
exclude_patterns = ["_build", "_ext"]

# Markdown: anchors for headings, as on GitHub, so that links work in both
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "colon_fence"]

# docstrings are reStructuredText; what is not posepipe's (numpy, torch) is named and not linked, as nothing is fetched
nitpicky = True
nitpick_ignore_regex = [("py:class", r".*\[.*")]  # whole types, as in "alias of dict[str, float]"
autodoc_default_options = {
    "members": True, "member-order": "bysource", "ignore-module-all": True, "exclude-members": "input_spec, output_spec",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"posepipe {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = html_copy_source = False
html_show_sphinx = False
