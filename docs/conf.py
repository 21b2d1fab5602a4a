"""The documentation: `make docs`. Builds without a network; the tutorials are executed."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import napoleon
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.transforms import SphinxTransform
from sphinx_gallery.sorting import ExplicitOrder

import robustrecon

project = "robustrecon"
author = "the robustrecon authors"
copyright = f"2026, {author}"
version = release = robustrecon.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5", "gallery/*.zip", "tutorials"]
default_role = "code"
html_theme = "furo"
html_title = f"robustrecon {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sphinx = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Names of other projects link nowhere, since no inventory is fetched while building; nor do private bases and aliases.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|Tensor|numpy|pandas|pd|pathlib|Path|collections|typing|numbers|abc)(\..*)?"),
    (r"py:.*", r".*\._\w+|Json|WrongJson|Images|ImageShape|Data|Score|Grafted|(attacks\.worst_case\.)?Attempt"),
    (r"py:.*", r"robustrecon\.bench\.(fields\.Fields|keeping\.Keeper)"),
    (
        r"py:.*",
        r"OptionValue|robustrecon\.(models\.autoencoder\.Autoencoder|interop\.sklearn(\.imported)?\.SklearnClassifier)",
    ),
    (r"py:.*", r"(art|sklearn|ArrayLike|NDArray|np)(\..*)?|(PyTorchClassifier|EvasionDetector|(.*\.)?ArtClassifier)"),
    (r"py:.*", r"BaseEstimator|.*\.ImageEstimator"),
    (r"py:.*", r"robustrecon\.(figures\.node_samples\.NodeSamples|detectors\.base\.Cached)"),
    (r"py:.*", r"attacks\.own_apgd\.SteppingAttack|ExportedProgram"),
]

TUTORIALS = ("student", "bench", "engineer", "detector", "attack", "breaker", "own_detector", "with_art")
TUTORIALS += ("with_scikit_learn", "export")
os.environ.setdefault("OMP_NUM_THREADS", "2")
warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": ExplicitOrder([f"{name}.py" for name in TUTORIALS]),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 0,
    "abort_on_example_error": True,
    "default_thumb_file": str(Path(__file__).parent / "images" / "examples.png"),
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
}


class LinksIntoTheRepository(SphinxTransform):
    """Makes a link from a page to a file outside this folder, such as a report under results/, a download."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = link.get("reftarget", "")
            if link.get("refdomain") == "doc" and target.startswith("../"):
                download = addnodes.download_reference("", "", *link.children, reftarget=f"/{target}.md")
                link.replace_self(download)


def math(translator: Any, node: nodes.Element) -> None:
    """A formula as MathML, which browsers draw without a script."""
    block = isinstance(node, nodes.math_block)
    made = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="math">{made}</div>' if block else made)
    raise nodes.SkipNode


def resolved_by_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, child: nodes.Node
) -> nodes.Node | None:
    """The documented object that an annotation means, whose module is where it is written, not where it is exported."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    objects = env.get_domain("py").objects  # type: ignore[attr-defined]
    found = sorted(full for full in objects if full.rpartition(".")[2] == name)
    if not found:
        return None
    entry = objects[found[0]]
    uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
    reference = nodes.reference("", "", internal=True, refuri=f"{uri}#{entry.node_id}")
    reference += child.deepcopy()
    return reference


class Docstring(GoogleDocstring):
    """Several attributes may share a line, and what a property's docstring says before a colon is no type."""

    def __init__(self, docstring: Any, config: Any, app: Any = None, what: str = "", *others: Any) -> None:
        what = "method" if what in ("property", "attribute", "data") else what
        super().__init__(docstring, config, app, what, *others)

    def _parse_attributes_section(self, section: str) -> list[str]:
        return self._format_docutils_params(self._consume_fields(multiple=True), "ivar", "vartype")


napoleon.GoogleDocstring = Docstring  # type: ignore[misc]


def tidied(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Pages introduce their modules themselves, and an author's initial begins no list."""
    lines[:] = [] if what == "module" else [re.sub(r"^(\s*)([A-Z]\.) ", r"\1\\\2 ", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    app.add_transform(LinksIntoTheRepository)
    app.connect("autodoc-process-docstring", tidied, priority=600)  # after napoleon
    app.connect("missing-reference", resolved_by_name)


html_math_renderer = "mathml"
