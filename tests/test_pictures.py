"""Pictures show what they should: lines that coincide, captions of their own, the framed image, letters explained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks import readme, readme_picture
from robustrecon import DefendedClassifier, StyleMemoryNet, plotting
from robustrecon.bench import store
from robustrecon.bench.report import examples, html, interactive, still
from robustrecon.bench.report.curves import Curves, Legend, Line, Panel, roc_curves
from robustrecon.figures.base import Drawable, Measure, Picture, draw
from robustrecon.figures.mistakes import Misclassified
from robustrecon.figures.neighbourhoods import BAR, COLUMNS, ROWS, Neighbours
from robustrecon.figures.sheets import GAP
from robustrecon.figures.transfers import StyleTransfer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, as they are drawn."""
    found: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        found.append(figure)
        return path

    monkeypatch.setattr(plotting, "write", keep)
    monkeypatch.setattr(examples, "write", keep)
    return found


def test_each_of_several_lines_is_narrower_than_the_one_below_it() -> None:
    for n in (1, 2, 8):
        widths = plotting.widths(n)
        assert len(widths) == n
        assert widths[-1] == plotting.THIN
        assert max(np.diff(widths), default=-1) < 0
    assert plotting.widths(2)[0] > 2 * plotting.THIN


def test_lines_that_coincide_are_seen_in_both_reports(drawn: list[Figure], tmp_path: Path) -> None:
    widths = plotting.widths(2)
    lines = tuple(Line(name, (0.1, 0.2), (0.5, 1.0), "#000000", i, widths[i]) for i, name in enumerate("ab"))
    figure = Curves("t", "y", (Panel("p" * 20 + " " + "q" * 20, "x", lines),), (Legend("a", "#000000"),), points=True)
    still.curves(figure, tmp_path / "risk.png")
    (axes,) = drawn[0].axes
    below, above = axes.lines
    assert below.get_linewidth() > above.get_linewidth()
    assert below.get_markersize() > above.get_markersize()
    assert below.get_marker() != above.get_marker()
    assert "\n" in axes.get_title()
    shown = interactive.curves(figure)
    assert shown.data[0].line.width > shown.data[1].line.width
    assert shown.data[0].marker.size > shown.data[1].marker.size
    assert shown.data[0].marker.symbol != shown.data[1].marker.symbol
    assert "<br>" in shown.layout.annotations[0].text


def test_computed_curves_have_the_widths_of_their_order() -> None:
    results = store.read_folder(ROOT / "results" / "digits").results
    for panel in roc_curves(results).panels:
        assert [line.width for line in panel.lines] == plotting.widths(len(panel.lines))


def test_a_wide_table_breaks_its_long_cells_and_phones_see_the_page_in_its_size() -> None:
    rows = [["attack", "robust risk"], ["hybrid-100 early_exit=True restarts=3", "100.0 % [98.2, 100.0]"]]
    page = html.page("t", [], [html.Table("t", "", rows)], [], [], "c")
    assert '<td class="long">hybrid' in page
    assert "<td>100.0 % [98.2" in page
    assert '<meta name="viewport"' in page


def test_an_example_sheet_explains_its_letters(drawn: list[Figure], tmp_path: Path) -> None:
    image = torch.zeros(1, 4, 4)
    example = examples.Example(image, image, 1.0, [(image, 1, 2.0), (image, 0, 1.0), (image, 0, 1.0)], 1.0, True)
    examples.draw([example], ("zero", "one"), tmp_path / "examples.png", "title")
    assert drawn[0].get_supxlabel().startswith("E: ")
    assert any("predicted one" in axes.get_title() for axes in drawn[0].axes)


def test_a_sheet_shows_energies_that_its_detector_does_not_look_at() -> None:
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    defended = DefendedClassifier(StyleMemoryNet(10).eval(), "msp").calibrate(x, 0.5)
    wrong = (defended.inspect(x).label + 1) % 10
    picked = examples.pick_examples(defended, x, x, wrong, most=2)
    assert len(picked) == 2
    assert picked[0].drawings[0][2] >= 0
    assert picked[0].clean_energy == pytest.approx(picked[0].drawings[2][2])  # nothing was changed


class Squares(Drawable):
    """A figure with one further picture, of a fixed shape and with a colour bar."""

    measures: dict[str, Measure] = {}  # noqa: RUF012
    caption = "the sheet"

    def plot(self, ax: Any) -> None:
        ax.plot([0, 1])

    @property
    def further(self) -> dict[str, Picture]:
        return {"more": Picture(lambda ax: ax.figure.colorbar(ax.imshow(np.eye(3)), ax=ax), "the shares")}


def test_a_further_picture_has_its_own_caption_and_is_centred(drawn: list[Figure], tmp_path: Path) -> None:
    draw(Squares(), tmp_path / "squares", "title")
    assert [figure.get_supxlabel() for figure in drawn] == ["the sheet"] * 2 + ["the shares"] * 2
    drawn[-1].draw_without_rendering()
    image, bar = drawn[-1].axes
    left, right = image.get_position().x0, bar.get_position().x1
    assert (left + right) / 2 == pytest.approx(0.5, abs=0.05)


def test_captions_of_further_pictures_are_of_what_they_show() -> None:
    judged = np.tile(np.arange(3), (6, 1))
    shares = StyleTransfer(np.empty(0), np.empty(0), tuple("abc"), np.arange(6) % 3, judged, 0.9)
    assert "(rows)" in shares.further["shares"].caption
    assert "First column" not in shares.further["shares"].caption
    curve = Misclassified(
        *(np.empty(0) for _ in range(5)),
        energies=np.eye(3)[[0, 1, 2, 0]],
        y=np.array([0, 1, 2, 1]),
        labels=np.array([0, 1, 2, 0]),
        classes=tuple("abc"),
        scores={"msp": np.arange(4.0)},
        shown=1,
    )
    assert "msp 1.000" in curve.further["risk-coverage"].caption
    assert "E is" not in curve.further["risk-coverage"].caption


def test_the_base_image_is_framed_and_its_bars_are_its_style() -> None:
    n, size, dims = 98, 8, 4
    images = np.zeros((n, 1, size, size), dtype=np.float32)
    styles = np.tile(np.array([0.0, 0.5, 1.0, 0.5], dtype=np.float32), (n, 1))
    one = {"image": np.zeros(1), "style": np.zeros(1)}
    nearest = {space: np.zeros((1, n - 1), dtype=int) for space in one}
    both = {"image": images, "style": images}, {"image": styles, "style": styles}
    made = Neighbours(np.zeros(1, int), nearest, one, one, one, one, np.zeros(1), *both, "a")
    axes = Figure().subplots()
    made.plot(axes)
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(frames) == 2
    assert all(frame.get_edgecolor()[:3] != (1, 1, 1) for frame in frames)
    scale = 2  # 4 bars of 3 pixels need 12 of 16
    pixels = np.asarray(axes.images[0].get_array())
    high = (size + BAR) * scale
    assert pixels.shape == (2 * ROWS * (high + GAP) - GAP, COLUMNS * (size * scale + GAP) - GAP)
    assert frames[1].get_y() == ROWS * (high + GAP) - 0.5 - GAP / 2
    bars = pixels[size * scale : high, : size * scale]
    heights = (bars < 1).sum(0).reshape(dims, -1).max(1)
    assert heights.tolist() == [1, BAR * scale // 2, BAR * scale, BAR * scale // 2]
    assert made.caption.startswith("A test image (framed) and the first 55 of its 97")


class TestReadme:
    def test_every_table_stands_on_one_page(self) -> None:
        stand = [name for page in readme.pages(ROOT) for name in readme.named(page.read_text())]
        assert sorted(stand) == sorted(readme.TABLES)

    def test_pages_of_the_docs_are_filled_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(readme.TABLES, "summary", lambda results: "new")
        (tmp_path / "docs" / "deep").mkdir(parents=True)
        page = tmp_path / "docs" / "deep" / "figures.md"
        page.write_text("a\n\n<!-- summary: start -->\nold\n<!-- summary: end -->\n\nb\n")
        assert readme.pages(tmp_path)[1:] == [page]
        text = readme.rewritten(page.read_text(), tmp_path / "results")
        assert text == "a\n\n<!-- summary: start -->\n\nnew\n\n<!-- summary: end -->\n\nb\n"

    @pytest.mark.parametrize("page", ["<!-- sumary: start -->\n<!-- sumary: end -->", "<!-- summary: start -->\n"])
    def test_a_mark_without_a_table_or_an_end_is_an_error(self, page: str) -> None:
        with pytest.raises(SystemExit, match="must name one of"):
            readme.rewritten(page, ROOT / "results")

    def test_the_undefended_classifier_is_counted_from_the_cells(self) -> None:
        folder = ROOT / "results" / "robust"
        paths = folder.glob("mnist/style-memory-fast/label_margin/*.json")
        cells = [json.loads(path.read_text()) for path in paths if "-linf-0.4-" not in path.name]
        wrong = np.any([np.not_equal(cell["images"]["label"], cell["images"]["y"]) for cell in cells], axis=0)
        (row,) = re.findall(r"undefended classifier +\|.*", readme.summary_table(ROOT / "results"))
        assert f"| {100 * wrong.mean():.1f} % [" in row
        assert f"| {len(cells) // 3} " in row  # at 0.1, 0.2 and 0.3
        assert row.endswith(f"| {len(wrong)}   |")

    def test_the_picture_shows_a_row_an_image_with_its_verdict(self, drawn: list[Figure], tmp_path: Path) -> None:
        image = torch.zeros(1, 4, 4)
        drawings = [(image, 1, 5.0), (image, 0, 2.0), (image, 0, 2.0)]
        picked = [examples.Example(image, image, 1.0, drawings, 3.0, rejected) for rejected in (True, False)]
        readme_picture.draw(picked, 1.0, tmp_path / "picture.png")
        said = [[text.get_text() for text in axes.texts] for axes in drawn[0].axes if axes.texts]
        assert said == [["rejected", "5.0 − 2.0\n= 3.0\n> 1.0"], ["accepted", "5.0 − 2.0\n= 3.0\n≤ 1.0"]]

    def test_the_picture_is_that_of_its_file(self) -> None:
        told = SimpleNamespace(**json.loads((ROOT / readme.PICTURE).with_suffix(".json").read_text()))
        assert (ROOT / readme.PICTURE).read_bytes().startswith(b"\x89PNG")
        assert told.rejected <= told.broken <= told.n
        assert told.shown_rejected + told.shown_accepted == readme_picture.SHOWN
