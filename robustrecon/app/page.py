"""The page itself: what the user moves, and what then changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gradio as gr
from torch import Tensor

from ..models.shipped import names
from ..types import InputError
from . import html
from .desk import ATTACKS, Desk
from .drawing import from_canvas

ALPHA, EPS = 0.05, 0.2  # where the sliders stand at first
KEPT = 8  # models that stay loaded
TITLE = "robustrecon"
NO_IMAGE = "<p>Draw a digit, or take a test image.</p>"
# Fonts of the machine: the page fetches nothing.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def page(first: str, desk_of: Callable[[str], Desk]) -> gr.Blocks:
    """The page, on which the model `first` is loaded.

    Args:
        first: the model's name.
        desk_of: gives the desk of a model by its name; an InputError of it is shown on the page.
    """
    desks = lru_cache(KEPT)(desk_of)
    curves = lru_cache(4 * KEPT)(lambda model, eps: desks(model).separation(eps))

    def judged(model: str, x: Tensor | None, alpha: float) -> tuple[str, str]:
        """Verdict and drawings."""
        if x is None:
            return NO_IMAGE, ""
        desk = desks(model)
        found = desk.judge(x, alpha)
        return html.verdict(found, desk.classes), html.drawings(found, desk.classes)

    def drawn(model: str, canvas: dict[str, Any] | None, alpha: float) -> tuple[Any, ...]:
        layers = (canvas or {}).get("layers") or [None]
        x = from_canvas(layers[0], desks(model).image_shape)
        return x, shown(x), *judged(model, x, alpha), "", "", ""

    def taken(model: str, index: float, alpha: float) -> tuple[Any, ...]:
        desk = desks(model)
        if desk.test is None:
            raise InputError(f"data: the test images of {model} are not there (--data-dir); draw instead")
        x = desk.test.pick([int(index) % len(desk.test)]).x[0]
        return x, shown(x), *judged(model, x, alpha), "", "", ""

    def moved(model: str, x: Tensor | None, alpha: float) -> tuple[Any, ...]:
        return judged(model, x, alpha)

    def located(model: str, alpha: float, eps: float) -> tuple[Any, ...]:
        desk = desks(model)
        return (html.curve(curves(model, eps), desk.at(alpha).checked_calibration(), eps),)

    def attacked(model: str, x: Tensor | None, alpha: float, name: str, eps: float) -> tuple[Any, ...]:
        if x is None:
            raise InputError("image: there is none yet; draw a digit, or take a test image")
        desk = desks(model)
        clean = desk.judge(x, alpha)
        found = desk.judge(desk.attack(x, clean.label, name, eps, alpha), alpha)
        return (
            html.beside(clean, found, desk.classes, eps),
            html.verdict(found, desk.classes),
            html.drawings(found, desk.classes),
        )

    def changed(model: str) -> tuple[Any, ...]:
        test = desks(model).test
        return (
            None,
            "",
            "<p>Draw a digit, or take a test image.</p>",
            "",
            "",
            "",
            "",
            gr.update(visible=test is not None),
        )

    with gr.Blocks(theme=THEME, css=html.STYLE, title=TITLE, analytics_enabled=False) as made:
        gr.Markdown("# Does the classifier draw what it claims to see?")
        model = gr.Dropdown(
            list(dict.fromkeys([first, *names()])),
            value=first,
            label="Model: a shipped name, or a folder or file",
            allow_custom_value=True,
            elem_id="model",
        )
        problem = gr.HTML(elem_id="problem")
        image = gr.State(None)
        with gr.Row():
            with gr.Column(min_width=280):
                canvas = gr.Sketchpad(
                    label="Draw a digit",
                    type="numpy",
                    image_mode="RGBA",
                    canvas_size=(280, 280),
                    layers=False,
                    sources=(),
                    transforms=(),
                    brush=gr.Brush(default_size=22, colors=["#000000"], color_mode="fixed"),
                    elem_id="canvas",
                )
                judge = gr.Button("Judge the drawing", variant="primary", elem_id="judge")
                with gr.Group() as choice:
                    index = gr.Number(0, label="Number of a test image", precision=0, minimum=0, elem_id="index")
                    take = gr.Button("Take the test image", elem_id="take")
                seen = gr.HTML(elem_id="seen")
            with gr.Column(min_width=280):
                verdict = gr.HTML(NO_IMAGE, elem_id="verdict")
                drawings = gr.HTML(elem_id="drawings")
        gr.Markdown("## Threshold")
        with gr.Row():
            with gr.Column(min_width=280):
                alpha = gr.Slider(
                    0.01, 0.5, ALPHA, step=0.01, label="Bound on the false-alarm rate, alpha", elem_id="alpha"
                )
            with gr.Column(min_width=280):
                curve = gr.HTML(elem_id="curve")
        gr.Markdown("## Attack")
        with gr.Row():
            attack = gr.Radio(
                [(said, name) for name, said in ATTACKS.items()], value="pgd", label="Attack", elem_id="attack"
            )
            eps = gr.Slider(0.01, 0.5, EPS, step=0.01, label="Budget, L∞ eps", elem_id="eps")
        start = gr.Button("Attack the image", variant="primary", elem_id="start")
        beside = gr.HTML(elem_id="beside")
        under_attack = gr.HTML(elem_id="attacked-verdict")
        drawings_under_attack = gr.HTML(elem_id="attacked-drawings")

        def wire(event: Any, handler: Callable[..., tuple[Any, ...]], inputs: list[Any], outputs: list[Any]) -> None:
            """Let an event change `outputs`, or say on the page what the user did wrong."""

            def told(*given: Any) -> tuple[Any, ...]:
                try:
                    return *handler(*given), ""
                except InputError as error:
                    return *(gr.skip() for _ in outputs), html.message(str(error))

            event(told, inputs, [*outputs, problem])

        attack_shown = [beside, under_attack, drawings_under_attack]
        shown_of_image = [image, seen, verdict, drawings, *attack_shown]
        wire(judge.click, drawn, [model, canvas, alpha], shown_of_image)
        wire(take.click, taken, [model, index, alpha], shown_of_image)
        wire(index.submit, taken, [model, index, alpha], shown_of_image)
        wire(alpha.release, moved, [model, image, alpha], [verdict, drawings])
        for event in (made.load, alpha.release, eps.release):
            wire(event, located, [model, alpha, eps], [curve])
        wire(start.click, attacked, [model, image, alpha, attack, eps], attack_shown)
        wire(model.change, changed, [model], [*shown_of_image, choice])
        wire(model.change, located, [model, alpha, eps], [curve])
    return made


def shown(x: Tensor | None) -> str:
    """What the model sees."""
    if x is None:
        return ""
    return html.row([html.figure(html.image(x, "what the model sees"), "what the model sees", "large")])
