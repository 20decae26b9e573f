"""The documentation site: `make docs`.

The source folder is the root of the repository: each Markdown file is a page where it lies, so that
its links and pictures work on the site and beside the code alike, and no text stands twice.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import docstrings

import jsc

project = "jsc"
author = "The jsc developers"
copyright = author
version = release = jsc.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**", "examples/**", "benchmarks/README.md", "benchmarks/results/**",
    "CHANGELOG.md", "CONTRIBUTING.md",
]  # fmt: skip
# Folders named here are not walked through; of examples/ the gallery makes its own pages.
exclude_patterns = [
    ".*", "build", "dist", "out", "src", "tests", "scripts", "examples", "docs/_templates",
    "benchmarks/common", "benchmarks/convolution", "benchmarks/inputs", "benchmarks/jpeg",
    "benchmarks/networks", "benchmarks/peers",
]  # fmt: skip
templates_path = [str(Path(__file__).parent / "_templates")]

# ---- Markdown ------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# ---- the reference -------------------------------------------------------------------------------

autosummary_generate = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # of nn.Module, on every class
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style"), "Raises", "Warns"]
default_role = "literal"  # `x` in a docstring is code
add_module_names = False
python_maximum_signature_line_length = 88

nitpicky = True
# Without their inventories (below), names of Python and torch are plain text.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|collections|abc|os|pathlib|typing)\..*"),
    (r"py:.*", r"[A-Z]\w*(Error|Warning)|Any|Callable|Literal|PathLike|Path|Tensor|[A-Z]"),
    (
        r"py:class",
        r"jsc\.(\w+\.)*_.*|jsc\.network\.report\.Profile|jsc\.tuning\.\w+\.M",
    ),  # not made by users
]

# ---- other people's documents --------------------------------------------------------------------

INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def reachable(url: str) -> bool:
    """Whether links to this site can be made now: without a network, names are plain text."""
    try:
        with urlopen(url + "objects.inv", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False


intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if reachable(url)}
intersphinx_timeout = 5

# ---- examples ------------------------------------------------------------------------------------

# An example whose package is not installed is shown and not run.
NEEDS = {"ray": ["ray"], "timm_and_lightning": ["timm", "lightning", "tensorboard"]}
NOT_RUN = [name for name, needed in NEEDS.items() if not all(map(find_spec, needed))]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "docs/examples",
    "filename_pattern": rf"^(?!.*_with_({'|'.join(NOT_RUN) or '-'})\.py).*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,  # times of a busy machine say nothing
    "abort_on_example_error": True,
}

# ---- the look ------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "jsc"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_additional_pages = {"index": "redirect.html"}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# ---- links that `make linkcheck` follows ---------------------------------------------------------

linkcheck_timeout = 20
linkcheck_retries = 2


# ---- formulas as MathML, which browsers draw without scripts and without a network ---------------


def mathml(node, as_block: bool) -> str:
    try:
        return tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logging.getLogger(__name__).warning("formula: %s", error, location=node)
        return ""


def visit_inline(self, node: nodes.math) -> None:
    self.body.append(mathml(node, False))
    raise nodes.SkipNode


def visit_display(self, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{mathml(node, True)}</div>')
    raise nodes.SkipNode


def strip_code(app, doctree: nodes.document) -> None:
    """Doctest wants a blank line after the last output; a reader does not."""
    for node in doctree.findall(nodes.literal_block):
        text = node.astext().rstrip("\n")
        if text != node.astext() and node.rawsource == node.astext():
            node.rawsource = text
            node[:] = [nodes.Text(text)]


def setup(app) -> None:
    app.connect("doctree-read", strip_code)
    app.connect("autodoc-process-docstring", docstrings.process, priority=400)  # before Napoleon
    app.connect("autodoc-process-docstring", docstrings.process_property, priority=600)
    app.connect("autodoc-process-signature", docstrings.signature)
    app.connect("autodoc-process-bases", docstrings.public_bases)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))


html_math_renderer = "mathml"
