"""What the page shows of judgements, as HTML that needs nothing else: pictures, bars and a curve."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from ..detectors import Calibration
from ..figures.sheets import short
from .desk import Judgement, Separation

STYLE = """
.rr-row { display: flex; flex-wrap: wrap; gap: .6rem; align-items: flex-end; }
.rr-row figure { margin: 0; width: 5.2rem; }
.rr-row figure.large { width: 8.5rem; }
.rr-row img { width: 100%; image-rendering: pixelated; border: 2px solid transparent; background: #000; }
.rr-row figcaption { font-size: .8rem; line-height: 1.25; }
.rr-row figure.predicted img { border-color: #2563eb; }
.rr-bar { height: .5rem; background: #2563eb; }
.rr-track { background: #8884; }
.rr-verdict { font-size: 1.15rem; font-weight: 600; padding: .4rem .6rem; border-left: .4rem solid; margin: .4rem 0; }
.rr-accepted { border-color: #15803d; }
.rr-rejected { border-color: #b91c1c; }
.rr-note { font-size: .85rem; }
svg.rr-curve { width: 100%; max-width: 22rem; height: auto; }
"""


def message(text: str) -> str:
    """Something that the user should read, and that a screen reader says at once."""
    return f'<div class="rr-verdict rr-rejected" role="alert">{escape(text)}</div>'


def verdict(found: Judgement, classes: Sequence[str]) -> str:
    """One line: label, accepted or rejected, p-value and score."""
    said = "rejected" if found.rejected else "accepted"
    return (
        f'<div class="rr-verdict rr-{said}" role="status">{escape(short(classes[found.label]))}: {said}, '
        f"p-value {found.p_value:.4f}, score {found.score:.4g}</div>"
    )


def drawings(found: Judgement, classes: Sequence[str]) -> str:
    """The drawing under each label, its energy as a bar; the predicted label is marked."""
    if found.drawings is None and found.energies is None:
        return '<p class="rr-note">This model does not draw.</p>'
    energies = found.energies
    highest = 1.0 if energies is None else float(energies.max().clamp_min(1e-12))
    lowest = 0.0 if energies is None else min(0.0, float(energies.min()))
    figures = []
    for k, name in enumerate(map(short, classes)):
        predicted = k == found.label
        parts = [f"<b>{escape(name)}</b>{' (predicted)' * predicted}"]
        if energies is not None:
            share = (float(energies[k]) - lowest) / max(highest - lowest, 1e-12)
            parts.append(
                f"E = {float(energies[k]):.3g}"
                f'<div class="rr-track"><div class="rr-bar" style="width: {100 * share:.0f}%"></div></div>'
            )
        picture = "" if found.drawings is None else image(found.drawings[k], f"drawing under the label {name}")
        figures.append(figure(picture, "<br>".join(parts), "predicted" * predicted))
    return row(figures)


def beside(clean: Judgement, attacked: Judgement, classes: Sequence[str], eps: float) -> str:
    """The clean image, the perturbation and the attacked image, and whether the detector noticed."""
    moved = attacked.x - clean.x
    grey = 0.5 + moved / (2 * max(eps, 1e-12))
    names = [short(classes[each.label]) for each in (clean, attacked)]
    figures = [
        figure(image(clean.x, f"clean image, classified {names[0]}"), f"clean: {escape(names[0])}", "large"),
        figure(image(grey, f"perturbation within {eps:.3g}"), f"perturbation, ±{eps:.3g}", "large"),
        figure(image(attacked.x, f"attacked image, classified {names[1]}"), f"attacked: {escape(names[1])}", "large"),
    ]
    if attacked.label == clean.label:
        said = "The attack did not change the label."
    elif attacked.rejected:
        said = f"The attack turned {names[0]} into {names[1]}, and the detector noticed."
    else:
        said = f"The attack turned {names[0]} into {names[1]}, and the detector did not notice."
    return f'{row(figures)}<p role="status"><b>{escape(said)}</b></p>'


def curve(found: Separation | None, calibration: Calibration, eps: float) -> str:
    """The ROC curve, and where the threshold stands on it."""
    if found is None:
        return '<p class="rr-note">No curve: there are no test images, or no attack of this budget succeeded.</p>'
    fpr, tpr = found.roc(calibration)
    x, y = found.rates(calibration)
    side, edge = 200, 30
    points = " ".join(f"{edge + side * a:.1f},{side + 10 - side * b:.1f}" for a, b in zip(fpr, tpr, strict=True))
    said = f"at the threshold {x:.0%} of the clean and {y:.0%} of the adversarial images are rejected"
    return f"""<svg class="rr-curve" viewBox="0 0 {side + edge + 10} {side + 50}" role="img"
aria-label="ROC curve; {said}" fill="none" stroke="currentColor" font-size="11">
<rect x="{edge}" y="10" width="{side}" height="{side}" stroke-opacity=".4"/>
<path d="M{edge},{side + 10} L{edge + side},10" stroke-opacity=".3" stroke-dasharray="4"/>
<polyline points="{points}" stroke="#2563eb" stroke-width="2"/>
<circle cx="{edge + side * x:.1f}" cy="{side + 10 - side * y:.1f}" r="5" fill="#b91c1c" stroke="none"/>
<g fill="currentColor" stroke="none"><text x="{edge + side / 2}" y="{side + 40}" text-anchor="middle">clean images \
rejected</text><text transform="translate(12 {10 + side / 2}) rotate(-90)" text-anchor="middle">adversarial images \
rejected</text><text x="{edge}" y="{side + 24}">0</text><text x="{edge + side - 6}" y="{side + 24}">1</text></g></svg>
<p class="rr-note">PGD, L∞ {eps:.3g}, on {len(found.clean)} random test images, {len(found.adversarial)} of which it \
turned into another label: {said}.</p>"""


def image(x: Tensor, alt: str) -> str:
    """An image (C, H, W) in [0, 1] as an <img> with its bytes inside."""
    pixels = (255 * x.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)).save(out, "PNG")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


def figure(picture: str, caption: str, kind: str = "") -> str:
    """A picture with its caption, which is HTML."""
    return f'<figure class="{kind}">{picture}<figcaption>{caption}</figcaption></figure>'


def row(figures: Sequence[str]) -> str:
    """Figures side by side, or below each other where there is no room."""
    return f'<div class="rr-row">{"".join(figures)}</div>'
