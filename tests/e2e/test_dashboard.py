"""An administrator at the dashboard of a running node that interprets real studies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pydicom.config
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from db.accounts import add_user
from db.catalog import add_quarantined
from db.models_access import Role
from deploy.demo_pacs import LOOPBACK
from deploy.node_database import changing
from deploy.sending import send_folder
from dicom_node.archive import Archive
from tests.e2e.accessibility import find_axe, violations
from tests.e2e.browsing import PASSWORD, Pages, enter, find_chromium, logged_in
from tests.e2e.conftest import SENDER, Node, real_study, short_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGES = {
    "overview": "/", "jobs": "/jobs", "studies": "/studies", "failures": "/failures",
    "quarantine": "/quarantine", "rules": "/rules", "peers": "/peers", "model": "/model",
    "agreement": "/agreement", "people": "/people", "audit": "/audit", "settings": "/settings",
    "account": "/account", "api": "/api/docs",
}  # fmt: skip
SERIES = "udacity/Study1/13_HCropVolume"
"""The hippocampus in 32 slices of MR, 51 x 35 (Medical Segmentation Decathlon, CC BY-SA 4.0)."""
MIDDLE = slice(12, 20)
"""Of its slices: no more is needed where it is not shown whole, and it takes less."""
_TEXT = ("LO", "SH", "PN", "ST", "LT", "UT", "UC", "UR")
_CODES = ("CS", "AE", "AS", "DA", "TM")
_NEEDED = (
    "SpecificCharacterSet", "Modality", "PhotometricInterpretation", "ImageType", "RescaleType",
    "BodyPartExamined",
)  # fmt: skip
"""Without these the model would not be asked, and the viewer would have no mask to show."""
HOSTILE = "<script>window.taken=1</script>{{7*7}}'; DROP TABLE job;--\u202egnp.exe"


@pytest.fixture(scope="module")
def series(shared_data: Path) -> Path:
    return shared_data / "dicom" / SERIES


@pytest.fixture(scope="module")
def admin(node: Node) -> Iterator[Pages]:
    find_chromium()
    with logged_in(node, "administrator", Role.ADMIN) as pages:
        yield pages


@pytest.fixture(scope="module")
def failed(node: Node, series: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A job that its destination refuses for good."""
    folder = tmp_path_factory.mktemp("x") / "refused"
    folder, study = real_study(series, folder, "to: refuser", MIDDLE)
    send_folder(folder, node.address, SENDER, print)
    (job,) = node.ended(study)
    assert job["state"] == "failed"
    return int(job["id"])


def said(page: Any) -> str:
    """Return what the page says at its foot."""
    line = page.locator("#said p").first
    line.wait_for()
    return str(line.inner_text())


def test_a_study_goes_through_live_without_a_reload(
    node: Node, admin: Pages, series: Path, tmp_path: Path
) -> None:
    admin.open("/jobs")
    admin.page.evaluate("window.sameage = true")
    folder, study = real_study(series, tmp_path / "study", "watched", MIDDLE)
    send_folder(folder, node.address, SENDER, print)
    row = admin.page.locator("#job-list tr", has_text="watched").first
    row.locator(".state").wait_for()
    row.locator(".state", has_text="delivered").wait_for(timeout=240_000)
    assert admin.page.evaluate("window.sameage") is True
    row.locator("a.open").click()
    admin.page.locator("h1", has_text="delivered").wait_for()
    assert admin.page.locator("#timeline tbody tr").count() >= 8
    assert admin.page.locator("#answers .state", has_text="has it").count() >= 3
    assert node.delivered(study)["state"] == "delivered"


def test_a_failed_job_is_retried(admin: Pages, failed: int) -> None:
    admin.open(f"/jobs/{failed}")
    admin.page.get_by_role("button", name="Try again").click()
    assert f"Job {failed} goes on" in said(admin.page)
    admin.page.locator("h1 .state", has_text="failed").wait_for()
    assert admin.page.locator("#events", has_text="reopened").count() == 1
    admin.open("/failures")
    # Others may have failed there by another form of the objects: a cause of its own.
    groups = admin.page.locator("article", has_text="REFUSER")
    ours = groups.filter(has=admin.page.get_by_role("link", name=str(failed), exact=True))
    assert ours.count() == 1


def test_two_operators_press_retry_at_once(node: Node, admin: Pages, failed: int) -> None:
    with changing(node.home) as session:
        add_user(session, "other", Role.OPERATOR, datetime.now(UTC), password=PASSWORD)
    other = enter(admin.page.context.browser, node, "other")
    both = (admin, other)
    for pages in both:
        pages.open(f"/jobs/{failed}")
        pages.page.locator("h1 .state", has_text="failed").wait_for()
    reopened = admin.page.locator("#events li", has_text="reopened").count()
    for pages in both:
        pages.page.evaluate(
            """at => setTimeout(() => document.querySelector("button[value=retry]").click(),
                                at - Date.now())""",
            (datetime.now(UTC).timestamp() + 0.5) * 1000,
        )
    answers = sorted(said(pages.page) for pages in both)
    assert all(answer.startswith(f"Job {failed} ") for answer in answers), answers
    assert sum("goes on" in answer for answer in answers) == 1, answers
    admin.page.locator("h1 .state", has_text="failed").wait_for()
    admin.open(f"/jobs/{failed}")
    assert admin.page.locator("#events li", has_text="reopened").count() == reopened + 1
    assert other.wrong == []
    other.page.context.close()


def test_a_critical_finding_is_marked_in_the_list_and_on_the_page(
    admin: Pages, failed: int
) -> None:
    admin.open("/jobs")
    row = admin.page.locator(f"#job-{failed}")
    assert row.get_by_text("critical", exact=True).count() == 1
    others = admin.page.locator("#job-list tbody tr").filter(has_text="to the PACS")
    assert others.count() and others.get_by_text("critical", exact=True).count() == 0
    row.locator("a.open").click()
    admin.page.locator("h1 .mark-urgent", has_text="critical").wait_for()
    admin.page.locator(".finding .mark-urgent:visible").first.wait_for()
    admin.page.locator(".finding").get_by_role("button", name="Accept").first.click()
    admin.page.locator(".verdict", has_text="accepted by administrator").wait_for()


def test_a_study_that_waits_goes_on_when_a_person_says_so(
    admin: Pages, node: Node, series: Path, tmp_path: Path
) -> None:
    folder, study = real_study(series, tmp_path / "study", "held open", MIDDLE)
    entity = AE(SENDER)
    entity.dimse_timeout = 60
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate(
        LOOPBACK, int(node.ready["port"]), ae_title=node.ready["ae_title"]
    )
    assert association.is_established
    try:
        for path in sorted(folder.iterdir()):
            assert association.send_c_store(path).Status == 0
        (job,) = node.wait(lambda: node.jobs_of(study), "the study waits")
        admin.open(f"/jobs/{job['id']}")
        admin.page.get_by_text("Why it waits:").wait_for()
        admin.page.get_by_text("still holds the association").first.wait_for()
        admin.page.get_by_role("button", name="Go on now").click()
        assert f"Job {job['id']} is looked at at once" in said(admin.page)
        admin.page.locator("h1 .state", has_text="delivered").wait_for()
        assert association.is_established
        assert admin.page.locator("#events", has_text="administrator wants it").count() == 1
    finally:
        association.release()


def test_a_peer_is_asked_and_probed_and_certificates_tell_how_long_they_hold(
    admin: Pages, node: Node
) -> None:
    admin.open("/peers")
    named = admin.page.get_by_role("cell", name="pacs", exact=True)
    row = admin.page.locator("#destinations tr", has=named)
    row.get_by_role("button", name="Echo").click()
    assert "answers" in said(admin.page)
    row.locator(".state", has_text="answers").wait_for()
    row.get_by_role("button", name="Probe").click()
    admin.page.locator("h1", has_text="What pacs takes").wait_for()
    assert admin.page.locator("tr", has_text="Comprehensive 3D SR").get_by_text("yes").count()
    admin.open("/peers")
    admin.page.locator("tr", has_text="this node, DICOM").get_by_text("30 days").wait_for()


def test_a_refresh_that_hangs_is_given_up_and_the_page_goes_on(admin: Pages, node: Node) -> None:
    page = admin.page.context.new_page()
    page.set_default_timeout(60_000)
    page.clock.install()
    # The deadline of a request comes when the test says so, not before the request hangs.
    page.add_init_script(
        """window.deadlines = [];
           AbortSignal.timeout = () => {
               const deadline = new AbortController();
               window.deadlines.push(deadline);
               return deadline.signal;
           };"""
    )
    page.goto(f"{admin.url}/jobs")
    page.locator("#alive", has_text="live").wait_for()
    hanging: list[Any] = []
    page.route(f"{admin.url}/jobs", lambda route: hanging.append(route))
    page.clock.run_for(17_000)  # a page asks for itself every 15 s
    node.wait(lambda: page.evaluate("window.deadlines.length") and hanging, "a request hangs")
    page.evaluate(
        """for (const one of window.deadlines) one.abort(new DOMException("", "TimeoutError"))"""
    )
    page.locator("#alive", has_text="does not answer").wait_for()
    page.unroute(f"{admin.url}/jobs")
    page.clock.run_for(17_000)
    page.locator("#alive", has_text="live").wait_for()
    page.close()


@pytest.mark.usefixtures("failed")  # so that something has come in
def test_the_site_and_the_disk_are_told(admin: Pages, node: Node) -> None:
    admin.open("/")
    assert admin.page.locator(".bar .site").inner_text() == "Test, House 4"
    assert admin.page.title().endswith("Test, House 4")
    ground = "getComputedStyle(document.querySelector('.bar')).backgroundColor"
    assert admin.page.evaluate(ground) == "rgb(122, 31, 92)"
    disk = admin.page.locator("section", has=admin.page.get_by_role("heading", name="Disk"))

    def is_told() -> bool:
        admin.open("/")
        return bool(disk.last.get_by_text("a day, at the rate of the first hour").count() == 1)

    node.wait(is_told, "what comes in each day", 60)
    full = disk.last.locator("dt:has-text('Full') + dd").inner_text()
    assert re.search(r"in [\d.]+ days|all that is known is the first hour", full), full


def test_patients_are_hidden_until_they_are_shown(admin: Pages, series: Path, failed: int) -> None:
    image = pydicom.dcmread(next(iter(series.glob("*.dcm"))))
    number, family = str(image.PatientID), str(image.PatientName).split("^")[0]
    assert number and family
    addresses = (f"/jobs/{failed}", "/jobs", "/studies", "/")
    for address in addresses:
        admin.open(address)
        assert number not in admin.page.content() and family not in admin.page.content()
    admin.open("/jobs")
    word = admin.page.locator(f"#job-{failed} span.patient")
    assert word.inner_text() == "hidden"
    assert word.evaluate("one => one.getClientRects().length") == 1, "it is broken in two"
    assert admin.page.locator(f"#job-{failed} img").evaluate("one => one.decode()") is None
    admin.open(f"/jobs/{failed}?slice=3")
    show_patients(admin)
    admin.page.wait_for_url(re.compile(rf"/jobs/{failed}\?slice=3"))
    assert number in admin.page.locator("#job-top").inner_text()
    admin.page.locator(".person summary").click()
    admin.page.get_by_role("button", name="Hide patients").click()
    admin.page.locator("#job-top .patient", has_text="hidden").first.wait_for()
    assert number not in admin.page.content()


def show_patients(admin: Pages) -> None:
    """Have names on the pages, if they are hidden."""
    admin.page.locator(".person summary").click()
    button = admin.page.get_by_role("button", name="Show patients")
    if button.count():
        button.click()
        admin.page.locator(".person:not([open])").wait_for()


def test_jobs_are_walked_by_keyboard(admin: Pages, failed: int) -> None:
    admin.open("/jobs?state=failed")
    admin.page.keyboard.press("j")
    admin.page.keyboard.press("x")
    assert admin.page.locator("#ticked").inner_text() == "1 ticked"
    admin.page.keyboard.press("Enter")
    admin.page.wait_for_url(re.compile(r"/jobs/\d+$"))
    admin.page.keyboard.press("/")
    assert admin.page.evaluate("document.activeElement.id") == "find"


def drop_file(admin: Pages, path: Path) -> None:
    """Choose a file to try rules on, once the page's script listens to it."""
    admin.page.locator("[data-drop][data-ready]").wait_for()
    admin.page.set_input_files("#file", path)


def test_rules_are_edited_tried_and_saved(
    admin: Pages, node: Node, series: Path, tmp_path: Path
) -> None:
    admin.open("/rules")
    text = admin.page.input_value("textarea")
    admin.page.fill("textarea", text.replace("rules:", "rulez:", 1))
    admin.page.get_by_role("button", name="Check and try").click()
    assert "rules.yaml:1" in admin.page.locator(".problem").first.inner_text()
    # Chromium reports the status of that answer, 422, as an error of its own.
    assert all("422" in line for line in admin.wrong)
    admin.wrong.clear()
    admin.page.fill("textarea", text)
    large = tmp_path / "large.dcm"
    with large.open("wb") as file:
        file.truncate(2 * 2**30)
    drop_file(admin, large)
    admin.page.locator("[data-drop-said]", has_text="larger than 64 MiB").wait_for()
    drop_file(admin, next(iter(series.glob("*.dcm"))))
    admin.page.locator("#trial", has_text="takes it").wait_for()
    admin.page.get_by_role("button", name="Check and try").click()
    admin.page.locator("#trial .big").wait_for()
    admin.page.fill("[name=comment]", "as before, with a comment")
    admin.page.fill("textarea", text + "# changed by a test\n")
    admin.page.get_by_role("button", name="Save").click()
    assert "Saved" in said(admin.page)
    assert (node.home / "rules.yaml").read_text().endswith("# changed by a test\n")
    admin.page.get_by_text("as before, with a comment").wait_for()


def test_an_object_is_taken_up_from_quarantine(
    admin: Pages, node: Node, series: Path, tmp_path: Path
) -> None:
    folder, study = real_study(series, tmp_path / "study", "from quarantine")
    archive = Archive(node.home / "archive", reserve_bytes=0)
    whole = next(iter(folder.glob("*"))).read_bytes()
    for content in (whole[: len(whole) // 2], whole):
        origin = {"calling_ae_title": SENDER, "peer_host": LOOPBACK}
        path = archive.quarantine(content, "could not be read", origin)
        with changing(node.home) as session:
            add_quarantined(
                session, path=archive.relative(path), reason="could not be read",
                received_at=datetime.now(UTC), size=len(content), origin=origin,
            )  # fmt: skip
    admin.open("/quarantine")
    assert admin.page.locator("#entries tbody tr").count() == 2
    admin.page.locator("td a").first.click()
    admin.page.locator(".header", has_text="Study Description").wait_for()
    admin.page.get_by_role("button", name="Take up").click()
    assert study in said(admin.page)
    assert node.ended(study)
    admin.open("/quarantine")
    assert admin.page.locator("#entries tbody tr").count() == 1


def test_an_attack_in_every_string_is_shown_as_text(
    admin: Pages, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = short_study(tmp_path, "attack", slices=3)
    # Longer than the value representations allow: a hostile sender does not mind.
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    for path in folder.glob("*"):
        image = pydicom.dcmread(path)
        image.SpecificCharacterSet = "ISO_IR 192"
        for element in list(image):
            if element.keyword in _NEEDED:
                continue
            if element.VR in _TEXT:
                element.value = HOSTILE
            elif element.VR in _CODES:
                element.value = HOSTILE.replace("\u202e", "")  # these know no character set
        for keyword in ("PatientName", "StudyDescription", "SeriesDescription", "PatientComments"):
            setattr(image, keyword, (HOSTILE * 2000)[:62_000])
        image.save_as(path)
    send_folder(folder, node.address, SENDER, print)
    jobs = node.ended(study)
    names = [f"/jobs/{job['id']}" for job in jobs]
    show_patients(admin)
    listed = [*names, "/jobs", "/jobs?search=%3Cscript%3E", "/studies", "/audit", "/", "/failures"]
    for address in [*listed, "/quarantine", "/rules", "/agreement", f"{names[0]}/ask"]:
        admin.open(address)
        shows_no_attack(admin)
    study_page = admin.page.locator(".frame main a[href^='/studies/']").first.get_attribute("href")
    admin.open(str(study_page))
    shows_no_attack(admin)
    admin.open(names[0])
    assert "<script>window.taken=1</script>{{7*7}}" in admin.page.locator("#job-top").inner_text()
    admin.page.wait_for_function(
        "() => document.querySelector('[data-viewer-root]').viewer?.masks.segments.length"
    )
    admin.page.locator(".sentence:not([disabled])").first.click()
    admin.page.locator(".finding.chosen").wait_for()
    admin.page.get_by_text("What the report says").last.click()
    admin.page.get_by_text("Diagnostic Imaging Report").wait_for()
    shows_no_attack(admin)


def shows_no_attack(admin: Pages) -> None:
    """Hold that hostile text on the page did nothing, and turns nothing round."""
    assert admin.page.evaluate("window.taken") is None
    assert "\u202e" not in admin.page.locator("main").inner_text()
    assert "\u202e" not in admin.page.title()
    assert admin.page.locator("main script:not([type='application/json'])").count() == 0
    assert admin.page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_every_page_fits_a_phone_and_shows_itself(admin: Pages, failed: int) -> None:
    names = {**PAGES, "job": f"/jobs/{failed}"}
    against: list[str] = []
    for name, address in names.items():
        for theme in ("light", "dark"):
            admin.page.context.add_cookies([{"name": "theme", "value": theme, "url": admin.url}])
            admin.open(address)
            assert admin.page.locator("h1").count() == 1, address
            against += violations(admin.page, contrast_alone=theme == "dark")
            admin.picture(f"dashboard-{name}-{theme}", full=name not in ("settings", "api"))
        admin.page.set_viewport_size({"width": 390, "height": 844})
        admin.open(address)
        width = admin.page.evaluate("document.documentElement.scrollWidth")
        admin.picture(f"dashboard-{name}-phone")
        admin.page.set_viewport_size({"width": 1280, "height": 900})
        assert width <= 390, (address, width)
    assert against == [], "\n".join(against)
    if find_axe() is None:
        pytest.skip("axe-core is not here (see tests/outside_peers.sh): WCAG was not checked")


def test_logging_out_ends_it(admin: Pages) -> None:
    other = admin.page.context.new_page()
    other.goto(f"{admin.url}/jobs")
    # Not by a condition in words: the page's policy forbids to evaluate it a second time.
    other.locator("#alive .dot[data-tone=good]").wait_for(state="attached")
    admin.open("/")
    admin.page.locator(".person summary").click()
    admin.page.get_by_role("button", name="Log out").click()
    admin.page.wait_for_url(re.compile("/login"))
    assert violations(admin.page) == []
    admin.picture("dashboard-login-dark")
    other.wait_for_url(re.compile("/login"))  # by itself: nobody touches it
    other.close()
    admin.open("/jobs")
    admin.page.wait_for_url(re.compile("/login"))
