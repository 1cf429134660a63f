"""The page, in a real browser: an image is chosen or dropped, and the answer is drawn over it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from served import Near, Service, png, serving

from tuner.deploy.serve.answering.asked import Answered, Asked, Description
from tuner.deploy.serve.limits import Limits
from tuner.tasks.predictions.coding import encoded

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 640}
TOKEN = "a-token-of-a-test"


class Found:
    """Finds a red thing in the left upper quarter of each image: a box and a mask."""

    description = Description({"": "objects"}, {"predicts": "objects with boxes and masks"})

    async def answer(self, asked: Asked) -> Answered:
        import json

        import numpy as np

        mask = np.zeros((80, 120), bool)
        mask[:40, :60] = True
        mask[10:15, 20:25] = False
        box = {"box": [0, 0, 60, 40], "label": "<b>thing</b>", "score": 0.875, "mask": encoded(mask)}
        return Answered((json.dumps({"path": "", "boxes": [box]}),))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = checkpoints.small(tmp_path_factory.mktemp("model"))
    with serving({"digits": Near(folder, Limits()), "things": Found()}, Limits(pixels=100_000)) as running:
        yield running


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Opens the page of a service; nothing may be wrong on it."""
    pages, wrong = [], []

    def open_page(service: Service, size: dict[str, int] = DESKTOP) -> Any:
        page = browser.new_page(viewport=size)
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"http://127.0.0.1:{service.port}/")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


def image(name: str = "photo.png", size: tuple[int, int] = (80, 120)) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": png(3, size)}


def test_an_image_that_is_chosen_by_keyboard(service: Service, opened: Opened) -> None:
    page = opened(service)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    assert "digits: one class" in page.text_content("#about")
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached[:2] == ["model", "file"]
    with page.expect_file_chooser(timeout=120_000) as chooser:
        page.press("#file", "Enter")
    chooser.value.set_files(image())
    page.wait_for_selector("#answer:not([hidden])")
    assert len(page.query_selector_all("#rows tr")) == 5, "the five likeliest classes"
    assert page.text_content("#caption") == "digits, version 1 (champion)"
    wanted = service.ask(body=png(3, (80, 120))).json["predictions"][0]
    assert page.text_content("#rows td") == wanted["label"] and page.text_content("#status").startswith("Found: ")


def test_boxes_and_masks_are_drawn_where_they_are(service: Service, opened: Opened) -> None:
    page = opened(service)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.select_option("#model", "things")
    page.set_input_files("#file", image())
    page.wait_for_selector("#answer:not([hidden])")
    assert page.text_content("#rows td") == "<b>thing</b>", "a label is a text"
    assert page.text_content("#rows td:nth-child(2)") == "87.5 %"

    def alpha(x: int, y: int) -> int:
        """How much is drawn at a pixel of the image."""
        return int(
            page.evaluate(
                "([x, y]) => { const it = document.getElementById('drawn'); return it.getContext('2d').getImageData("
                "x * it.width / 120, y * it.height / 80, 1, 1).data[3]; }",
                [x, y],
            )
        )

    assert page.locator("#shown").bounding_box()["width"] >= 250, (
        "a small image is enlarged, so that labels can be read"
    )
    assert 100 < alpha(10, 30) < 130 and 100 < alpha(58, 38) < 130, "the mask"
    assert alpha(22, 12) == 0 and alpha(61, 60) == 0 and alpha(100, 20) == 0, "its hole, and what is beside it"
    assert alpha(60, 30) > 130, "the edge of the box"
    canvas, shown = (page.query_selector(each).bounding_box() for each in ("#drawn", "#shown"))
    assert canvas == shown


def test_an_image_that_is_dropped(service: Service, opened: Opened) -> None:
    page = opened(service)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    dropped = page.evaluate_handle(
        """bytes => { const held = new DataTransfer();
        held.items.add(new File([new Uint8Array(bytes)], "x.png", {type: "image/png"})); return held; }""",
        list(png(1)),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("#answer:not([hidden])")
    assert page.query_selector("#rows tr")


def test_what_is_wrong_is_told(service: Service, opened: Opened) -> None:
    page = opened(service)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    page.wait_for_selector("#status:has-text('it is not an image')")
    assert page.is_hidden("#answer")


def test_on_a_phone_nothing_is_wider_than_the_screen(service: Service, opened: Opened) -> None:
    page = opened(service, PHONE)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.set_input_files("#file", image("wide.png", (60, 900)))
    page.wait_for_selector("#answer:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    heights = [page.query_selector(each).bounding_box()["height"] for each in ("#model", "#file")]
    assert min(heights) >= 44, "a finger meets them"


def test_a_service_with_a_token(opened: Opened) -> None:
    with serving({"things": Found()}, token=TOKEN) as service:
        page = opened(service)
        page.wait_for_selector("#locked:not([hidden])")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#model option", state="attached")
        page.set_input_files("#file", image())
        page.wait_for_selector("#answer:not([hidden])")
        assert page.is_hidden("#locked")


def test_its_files_are_packed(tmp_path: Path) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    [pattern] = project["tool"]["setuptools"]["package-data"]["tuner.deploy.serve.http.page"]
    folder = Path(__file__).parents[3] / "tuner" / "deploy" / "serve" / "http" / "page"
    assert {each.name for each in folder.glob(pattern)} == {"page.html", "page.css", "page.js"}
