"""A reader at the viewer of a real CT: slices, sentences, masks, verdicts, questions."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from dashboard.masks import mask_of_runs
from db.models_access import Role
from db.reviews import last_reviews
from deploy.demo_pacs import OrthancPacs
from deploy.node_database import open_database
from deploy.sending import send_folder
from tests.e2e.accessibility import violations
from tests.e2e.browsing import SCREENSHOTS, Pages, find_chromium, logged_in
from tests.e2e.conftest import SENDER, Node, real_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SERIES = "ibsi-sts/STS_014/CT/image"
"""A soft-tissue sarcoma in 65 slices, 178 x 197 (TCIA Soft-tissue-Sarcoma, CC BY 3.0)."""
LAST = 64


@pytest.fixture(scope="module")
def job(node: Node, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    find_chromium()
    folder = tmp_path_factory.mktemp("viewer") / "study"
    folder, study = real_study(shared_data / "dicom" / SERIES, folder, "CT of the left leg")
    send_folder(folder, node.address, SENDER, print)
    return {**node.delivered(study), "folder": folder}


@pytest.fixture(scope="module")
def reader(node: Node, job: dict[str, Any]) -> Iterator[Pages]:
    with logged_in(node, "reader", Role.OPERATOR) as pages:
        yield pages


@pytest.fixture
def viewer(reader: Pages, job: dict[str, Any]) -> Any:
    """Return the page of the job, with image and masks."""
    reader.open(f"/jobs/{job['id']}")
    wait(reader.page, "viewer.shownFrame && viewer.masks.segments.length")
    return reader.page


def wait(page: Any, condition: str) -> None:
    """Wait until something holds of the viewer."""
    page.wait_for_function(
        "() => { const viewer = document.querySelector('[data-viewer-root]').viewer;"
        f" return viewer && ({condition}); }}"
    )


def told(page: Any, expression: str) -> Any:
    return page.evaluate(
        "() => { const viewer = document.querySelector('[data-viewer-root]').viewer;"
        f" return {expression}; }}"
    )


def grid(page: Any, rows: int, columns: int) -> NDArray[np.uint8]:
    """Return the canvas' colour at the middle of each pixel of the image, (rows, columns, 3)."""
    page.evaluate("document.querySelector('canvas').getContext('2d')")
    url = told(page, "(viewer.picture.draw(), viewer.picture.canvas.toDataURL('image/png'))")
    body = base64.b64decode(url.partition(",")[2])
    canvas = np.asarray(Image.open(io.BytesIO(body)))
    place = told(page, "viewer.picture.placement()")
    y = (place["top"] + (np.arange(rows) + 0.5) * place["scaleY"]).astype(int)
    x = (place["left"] + (np.arange(columns) + 0.5) * place["scaleX"]).astype(int)
    picked: NDArray[np.uint8] = canvas[y][:, x, :3]
    return picked


def masks_of(node: Node, job: dict[str, Any]) -> NDArray[np.bool_]:
    """Return the masks of the job's SEG as another reader sees them: (frames, rows, columns)."""
    result = next(one for one in job["results"] if one["kind"] == "segmentation")
    read = highdicom.seg.segread(node.home / "archive" / result["file"])
    images = [pydicom.dcmread(path) for path in sorted(job["folder"].iterdir())]
    images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    pixels = read.get_pixels_by_source_instance(
        [str(image.SOPInstanceUID) for image in images], assert_missing_frames_are_empty=True
    )
    return np.asarray(pixels[..., 0] > 0)


def shown_mask(page: Any, rows: int, columns: int, segment: int = 1) -> NDArray[np.bool_]:
    """Return where the canvas has a segment's colour; masks must be filled."""
    colour = told(page, f"viewer.colourOf({segment})")
    return np.asarray((grid(page, rows, columns) == colour).all(axis=-1))


def place_of(page: Any, row: float, column: float) -> dict[str, float]:
    """Return where the middle of a pixel lies in the canvas."""
    place = told(page, "viewer.picture.placement()")
    return {"x": place["left"] + (column + 0.5) * place["scaleX"],
            "y": place["top"] + (row + 0.5) * place["scaleY"]}  # fmt: skip


def only_the_mask(page: Any) -> None:
    """Fill masks without transparency, draw no lines."""
    page.locator("[data-viewer=outlines]").uncheck()
    page.locator("[data-viewer=opacity]").fill("100")


def test_a_click_on_a_sentence_shows_its_mask_pixel_by_pixel(
    viewer: Any, node: Node, job: dict[str, Any]
) -> None:
    expected = masks_of(node, job)
    finding = next(one for one in job["findings"] if one["segment_number"])
    only_the_mask(viewer)
    viewer.locator("canvas").focus()
    viewer.keyboard.press("End")
    wait(viewer, f"viewer.index === {LAST} && viewer.shownFrame === viewer.frames.peek({LAST})")
    viewer.get_by_role("button", name=finding["text"]).click()
    key = finding["key_frame"]
    wait(viewer, f"viewer.index === {key} && viewer.shownFrame === viewer.frames.peek({key})")
    assert np.array_equal(shown_mask(viewer, *expected.shape[1:]), expected[key])
    assert expected[key].sum() > 500

    box = viewer.get_by_role("checkbox", name=f"Show the mask of: {finding['target']}")
    box.uncheck()
    assert not shown_mask(viewer, *expected.shape[1:]).any()
    box.check()


def test_what_is_shown_is_saved_as_png(viewer: Any) -> None:
    shown = told(viewer, "(viewer.picture.draw(), viewer.picture.canvas.toDataURL('image/png'))")
    with viewer.expect_download() as download:
        viewer.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename.endswith(".png")
    saved = Path(download.value.path()).read_bytes()
    assert saved == base64.b64decode(shown.partition(",")[2])


def test_wheel_keys_slider_and_window_change_the_picture(viewer: Any, reader: Pages) -> None:
    start = told(viewer, "viewer.index")
    viewer.locator("canvas").hover()
    viewer.mouse.wheel(0, 60)
    wait(viewer, f"viewer.index === {start + 1}")
    viewer.keyboard.press("ArrowUp")
    wait(viewer, f"viewer.index === {start}")
    viewer.get_by_label("Slice", exact=True).fill("1")
    wait(viewer, "viewer.index === 0 && viewer.shownFrame === viewer.frames.peek(0)")
    before = grid(viewer, 178, 197)
    viewer.get_by_label("Window", exact=True).select_option("Bone")
    assert told(viewer, "[viewer.window.low, viewer.window.high]") == [-450, 1050]
    assert (grid(viewer, 178, 197) != before).any()
    letters = [viewer.locator(f"[data-viewer={edge}]").inner_text()
               for edge in ("top", "right", "bottom", "left")]  # fmt: skip
    assert letters == ["A", "L", "P", "R"]


def test_a_click_on_a_mask_marks_its_sentence(viewer: Any, node: Node, job: dict[str, Any]) -> None:
    expected = masks_of(node, job)
    finding = next(one for one in job["findings"] if one["segment_number"])
    index = told(viewer, "viewer.index")
    row, column = np.argwhere(expected[index])[expected[index].sum() // 2]
    viewer.locator("canvas").click(position=place_of(viewer, row, column))
    assert viewer.locator(".finding.chosen .sentence").inner_text() == finding["text"]
    viewer.keyboard.press("Escape")
    assert viewer.locator(".finding.chosen").count() == 0


def test_a_link_shows_the_same_again(viewer: Any, reader: Pages, job: dict[str, Any]) -> None:
    viewer.keyboard.press("Home")
    viewer.keyboard.press("i")
    viewer.get_by_label("Window", exact=True).select_option("Lung")
    viewer.wait_for_function("() => location.search.includes('low=-1350')")
    shared = viewer.url
    viewer.goto(reader.url + "/jobs")
    viewer.goto(shared)
    wait(viewer, "viewer.shownFrame && viewer.index === 0")
    assert told(viewer, "viewer.window.low") == -1350


def test_the_stack_is_seen_from_the_side(viewer: Any, node: Node, job: dict[str, Any]) -> None:
    expected = masks_of(node, job)
    only_the_mask(viewer)
    viewer.get_by_label("Plane", exact=True).select_option("coronal")
    wait(viewer, "viewer.plane.name === 'coronal' && viewer.shownFrame")
    row = told(viewer, "viewer.index")
    assert np.array_equal(shown_mask(viewer, LAST + 1, 197), expected[::-1, row, :])  # head up
    assert viewer.locator("[data-viewer=top]").inner_text() == "H"


def test_a_finding_is_rejected_and_the_name_stays(viewer: Any, job: dict[str, Any]) -> None:
    finding = next(one for one in job["findings"] if one["segment_number"])
    entry = viewer.locator(".finding", has_text=finding["text"])
    # In the site's zone, which is the node's here, and not the browser's.
    days = [f"{datetime.now().astimezone():%Y-%m-%d}"]
    entry.get_by_role("button", name="Reject").click()
    entry.get_by_text("rejected by reader").wait_for()
    days.append(f"{datetime.now().astimezone():%Y-%m-%d}")  # midnight may lie between
    viewer.reload()
    told_day = re.compile(f"rejected by reader, ({'|'.join(days)})")
    viewer.locator(".finding", has_text=told_day).wait_for()


def stroke(page: Any, row: float, column: float) -> None:
    """Drag the pointer over ten pixels of the image, to the right."""
    canvas = page.locator("canvas").bounding_box()
    for across, act in ((0, page.mouse.down), (10, page.mouse.up)):
        at = place_of(page, row, column + across)
        page.mouse.move(canvas["x"] + at["x"], canvas["y"] + at["y"])
        act()


def edited_masks(node: Node, job: dict[str, Any], position: int) -> dict[int, NDArray[np.bool_]]:
    with open_database(node.home) as session:
        review = last_reviews(session, job["id"])[position]
        assert review.account == "reader"
        assert review.dice is not None and 0.9 < review.dice < 1.0
        return {int(key): mask_of_runs(runs, 178, 197)
                for key, runs in (review.edits or {}).items()}  # fmt: skip


def test_a_mask_mended_with_the_brush_is_shown_again(
    viewer: Any, node: Node, job: dict[str, Any]
) -> None:
    expected = masks_of(node, job)
    finding = next(one for one in job["findings"] if one["segment_number"])
    position, key = job["findings"].index(finding), finding["key_frame"]
    entry = viewer.locator(".finding", has_text=finding["text"])
    row, column = np.argwhere(expected[key])[expected[key].sum() // 2]
    for frame in (key, key + 1):  # the second save keeps what the first one saved
        entry.get_by_role("button", name="Edit", exact=True).click()
        wait(viewer, f"viewer.index === {key} && viewer.shownFrame === viewer.frames.peek({key})")
        if frame != key:
            viewer.keyboard.press("ArrowDown")
            wait(viewer, f"viewer.shownFrame === viewer.frames.peek({frame})")
        viewer.get_by_role("button", name="Erase").click()
        stroke(viewer, row, column)
        viewer.get_by_text("1 slice changed").wait_for()
        viewer.get_by_role("button", name="Save as edited").click()
        viewer.locator("[data-viewer=brush]").wait_for(state="hidden")
    edited = edited_masks(node, job, position)
    assert edited.keys() == {key, key + 1}

    viewer.goto(viewer.url.partition("?")[0])
    wait(viewer, "viewer.shownFrame && viewer.masks.segments.length")
    entry.get_by_text("edited by reader").wait_for()
    only_the_mask(viewer)
    assert told(viewer, "viewer.index") == key
    assert np.array_equal(shown_mask(viewer, 178, 197), edited[key])
    assert (edited[key] != expected[key]).sum() > 20
    entry.get_by_role("button", name="Model's mask").click()
    assert np.array_equal(shown_mask(viewer, 178, 197), expected[key])
    entry.get_by_role("button", name="Edited mask").click()
    assert np.array_equal(shown_mask(viewer, 178, 197), edited[key])

    entry.get_by_role("button", name="Accept").click()  # the model's mask, then
    entry.get_by_text("accepted by reader").wait_for()
    assert np.array_equal(shown_mask(viewer, 178, 197), expected[key])
    assert entry.get_by_role("button", name="Edited mask").is_hidden()


def test_the_model_is_asked_and_the_answer_sent(
    reader: Pages, node: Node, pacs: OrthancPacs, job: dict[str, Any]
) -> None:
    page = reader.page
    reader.open(f"/jobs/{job['id']}/ask")
    wait(page, "viewer.shownFrame")
    page.get_by_label("What to look for").fill("soft-tissue sarcoma")
    page.get_by_role("button", name="Ask", exact=True).click()
    wait(page, "viewer.masks.segments.length === 1")
    only_the_mask(page)
    expected = masks_of(node, job)
    index = told(page, "viewer.index")
    assert np.array_equal(shown_mask(page, *expected.shape[1:]), expected[index])
    assert expected[index].sum() > 500

    # There is more than one destination, and nobody has chosen yet.
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("Choose first where the answer is sent.").wait_for()
    assert not page.locator("dialog[open]").count()
    page.get_by_label("Send to").select_option("pacs")
    page.get_by_role("button", name="Send", exact=True).click()
    page.locator("dialog").get_by_role("button", name="Send").click()
    sent = page.get_by_role("link", name="Sent as job")
    sent.wait_for()
    number = int(sent.inner_text().rsplit(" ", 1)[1])
    node.wait(lambda: node.states()[number] == "delivered", "the answer is in the PACS")


def test_a_box_is_drawn_and_asked_about(reader: Pages, job: dict[str, Any]) -> None:
    page = reader.page
    reader.open(f"/jobs/{job['id']}/ask")
    wait(page, "viewer.shownFrame")
    page.get_by_label("What is in this box?").check()
    assert page.get_by_role("button", name="Ask", exact=True).is_disabled()
    area = page.locator("canvas").bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.4, area["y"] + area["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + area["height"] * 0.5, steps=4)
    page.mouse.up()
    page.get_by_text("Slice ").first.wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    question = page.locator(".question").first
    question.get_by_text("What is in the box").wait_for()
    state = question.locator("[data-question=state]")
    page.wait_for_function(
        "() => ['answered', 'not covered'].includes("
        "document.querySelector('.question [data-question=state]').textContent)"
    )
    assert state.inner_text() in ("answered", "not covered")
    assert question.locator("[data-question=said]").inner_text()


def test_a_target_that_the_card_does_not_list_is_not_covered(
    reader: Pages, job: dict[str, Any]
) -> None:
    page = reader.page
    reader.open(f"/jobs/{job['id']}/ask")
    wait(page, "viewer.shownFrame")
    page.get_by_label("What to look for").fill("unicorn")
    page.get_by_role("button", name="Ask", exact=True).click()
    question = page.locator(".question", has_text="unicorn")
    question.get_by_text("not covered", exact=True).wait_for()
    assert "unicorn" in question.locator("[data-question=said]").inner_text()


def test_reports_open_as_trees(viewer: Any) -> None:
    viewer.get_by_text("What the report says").last.click()
    viewer.get_by_text("Diagnostic Imaging Report").wait_for()
    assert viewer.locator(".sr-value", has_text="sarcoma").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_on_a_screen_and_on_a_phone(reader: Pages, job: dict[str, Any], scheme: str) -> None:
    page = reader.page
    page.emulate_media(color_scheme=scheme)
    reader.open(f"/studies?search={job['study_instance_uid']}")
    study = page.locator("main a[href^='/studies/']").first.get_attribute("href")
    for name, address in (
        ("viewer", f"/jobs/{job['id']}?finding=1"),
        ("ask", f"/jobs/{job['id']}/ask"),
        ("study", study),
        ("agreement", "/agreement"),
    ):
        reader.open(address)
        if name in ("viewer", "ask"):
            wait(page, "viewer.shownFrame")
        if name == "ask":
            page.locator(".question").first.wait_for()
        if name == "viewer":
            page.locator(".finding.chosen").wait_for()
        assert violations(page, contrast_alone=scheme == "dark") == []
        if name == "viewer" and SCREENSHOTS:
            viewer = page.locator("#viewer")
            viewer.screenshot(path=str(Path(SCREENSHOTS) / f"viewer-{scheme}.png"))
        else:
            reader.picture(f"{name}-{scheme}")
    page.set_viewport_size({"width": 390, "height": 844})
    reader.open(f"/jobs/{job['id']}")
    wait(page, "viewer.shownFrame")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page, contrast_alone=True) == []
    reader.picture(f"viewer-phone-{scheme}", full=True)
    page.set_viewport_size({"width": 1280, "height": 900})
