"""The page on which to draw, judge and attack."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from robustrecon import InputError
from robustrecon.app import html
from robustrecon.app.desk import Desk, open_desk
from robustrecon.app.drawing import from_canvas
from robustrecon.app.serving import check_port

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def desk() -> Desk:
    return open_desk("robust/digits", device="cpu")


def test_a_judgement_is_what_the_classifier_says(desk: Desk) -> None:
    assert desk.test is not None
    x = desk.test.x[3]
    found = desk.judge(x, 0.1)
    verdict = desk.defended.inspect(x[None])
    assert (found.label, found.score) == (int(verdict.label), pytest.approx(float(verdict.score)))
    assert found.energies is not None
    assert found.drawings is not None
    assert found.energies.shape == (10,)
    assert found.drawings.shape == (10, *desk.image_shape)
    expected = (found.drawings - x).square().sum((1, 2, 3))
    torch.testing.assert_close(found.energies, expected, rtol=1e-3, atol=1e-4)


def test_a_larger_alpha_rejects_more_and_leaves_the_classifier_alone(desk: Desk) -> None:
    assert desk.test is not None
    before = desk.defended.threshold
    rejected = [int(desk.at(alpha).inspect(desk.test.x).rejected.sum()) for alpha in (0.02, 0.2, 0.5)]
    assert rejected[0] < rejected[1] < rejected[2]
    assert desk.defended.threshold == before


def test_an_attack_stays_in_its_budget_and_fools(desk: Desk) -> None:
    assert desk.test is not None
    x = desk.test.x[0]
    label = desk.judge(x, 0.05).label
    found = desk.attack(x, label, "pgd", 0.5, 0.05)
    assert (found - x).abs().max() <= 0.5 + 1e-6
    assert desk.judge(found, 0.05).label != label


def test_the_point_moves_along_the_curve(desk: Desk) -> None:
    separation = desk.separation(0.4)
    assert separation is not None
    points = [separation.rates(desk.at(alpha).checked_calibration()) for alpha in (0.02, 0.2, 0.5)]
    assert points == sorted(points)
    assert points[0] != points[-1]
    fpr, tpr = separation.roc(desk.defended.checked_calibration())
    for x, y in points:
        assert np.interp(x + 1e-9, fpr, tpr) >= y - 1e-6  # on the curve, or on its vertical part


def test_strokes_become_an_image_like_those_of_mnist() -> None:
    canvas = np.zeros((280, 280, 4), dtype=np.uint8)
    canvas[10:150, 20:40, 3] = 255  # a one, in a corner
    image = from_canvas(canvas, (1, 28, 28))
    assert image is not None
    assert image.shape == (1, 28, 28)
    rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == 20
    assert abs(float(rows.float().mean()) - 13.5) <= 0.5
    assert abs(float(columns.float().mean()) - 13.5) <= 1
    assert from_canvas(np.zeros((280, 280, 4), dtype=np.uint8), (1, 28, 28)) is None
    assert from_canvas(None, (1, 28, 28)) is None


def test_every_picture_has_words_for_those_who_do_not_see_it(desk: Desk) -> None:
    assert desk.test is not None
    found = desk.judge(desk.test.x[0], 0.05)
    said = html.drawings(found, desk.classes) + html.beside(found, found, desk.classes, 0.1)
    pictures = re.findall(r"<img [^>]*>", said)
    assert len(pictures) == 13
    assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures)
    assert "<script>" not in html.message("<script>")


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port: got {port}"):
            check_port("127.0.0.1", port)
    with pytest.raises(InputError, match="port: got 0, must be in 1 to 65535"):
        check_port("127.0.0.1", 0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "robustrecon", "app", "--model", "robust/digits", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    try:
        for _ in range(240):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1400])
def test_draw_judge_attack_and_reject_in_a_browser(address: str, width: int, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        page = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(
            viewport={"width": width, "height": 900}
        )
        answered: list[str] = []
        page.on("response", lambda response: answered.append(response.url))
        page.goto(address)
        page.wait_for_selector("#curve svg", timeout=120_000)
        # Draw.
        page.click("#canvas button[aria-label=Brush]")
        box = page.locator("#canvas canvas").last.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 4
        page.mouse.move(x, y)
        page.mouse.down()
        for step in range(10):
            page.mouse.move(x, y + step * box["height"] / 20)
        page.mouse.up()
        page.click("#judge")
        page.wait_for_selector("#verdict [role=status]")
        assert page.inner_text("#verdict").startswith("1:")
        # Attack a test image, and let the detector notice.
        page.click("#take")
        page.wait_for_selector("#seen img")
        page.fill("#eps input[type=number]", "0.5")
        page.press("#eps input[type=number]", "Enter")
        page.click("#start")
        page.wait_for_selector("#beside [role=status]", timeout=60_000)
        assert "and the detector noticed" in page.inner_text("#beside")
        assert "rejected" in page.inner_text("#attacked-verdict")
        # A wrong model is a message.
        page.fill("#model input", "nosuch/model")
        page.press("#model input", "Enter")
        page.wait_for_selector("#problem [role=alert]")
        assert "nosuch/model" in page.inner_text("#problem")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not [url for url in answered if not url.startswith((address, "data:", "blob:"))]
