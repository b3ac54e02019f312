"""Audit messages against the schema of PS3.15 section A.5.1, as the dashboard and hostile people
make them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from db.models_access import AuditRecord
from workflows.audit_messages import append_message, message_of

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("audit_message.rng")))


def record(**changes: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "id": 7,
        "at": datetime(2026, 3, 1, 8, tzinfo=UTC),
        "account": "Ada",
        "host": "10.1.2.3",
        "action": "job.view",
        "target": "job 7",
        "outcome": "success",
        "details": {},
        "digest": "ab" * 32,
    }
    return AuditRecord(**{**values, **changes})


def read(entry: AuditRecord) -> Any:
    text = message_of(entry, "UNIBIOMED")
    assert "\n" not in text
    message = etree.fromstring(text)
    SCHEMA.assertValid(message)
    return message


def attributes(message: Any, path: str, name: str) -> list[str]:
    return [one.get(name) for one in message.findall(path)]


def test_a_look_at_a_job_names_who_where_and_whom() -> None:
    message = read(record(details={"study": "1.2.3", "patient": "PID 1", "found": 3}))
    event = message.find("EventIdentification")
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("R", "0")
    assert event.find("EventID").get("csd-code") == "110103"
    assert attributes(message, "ActiveParticipant", "UserID") == ["Ada", "UNIBIOMED"]
    assert attributes(message, "ActiveParticipant", "UserIsRequestor") == ["true", "false"]
    named = attributes(message, "ParticipantObjectIdentification", "ParticipantObjectID")
    assert named == ["1.2.3", "PID 1", "job 7"]
    told = {
        one.get("type"): base64.b64decode(one.get("value")).decode()
        for one in message.iter("ParticipantObjectDetail")
    }
    assert told == {"found": "3", "record": "7", "digest": "ab" * 32}


@pytest.mark.parametrize(
    ("action", "event", "kind"),
    [
        ("login", "110114", "110122"),
        ("logout", "110114", "110123"),
        ("account.change", "110113", "110137"),
        ("patient.search", "110112", None),
        ("result.download", "110106", None),
        ("audit.list", "110101", None),
        ("rules.save", "110100", None),
    ],
)
def test_events_have_the_codes_of_dicom(action: str, event: str, kind: str | None) -> None:
    message = read(record(action=action, outcome="refused", host="station"))
    assert message.find("EventIdentification/EventID").get("csd-code") == event
    path = "EventIdentification/EventTypeCode"
    assert attributes(message, path, "csd-code") == [*([kind] if kind else []), action]
    assert attributes(message, path, "originalText")[-1] == action
    assert message.find("EventIdentification").get("EventOutcomeIndicator") == "4"
    assert message.find("ActiveParticipant").get("NetworkAccessPointTypeCode") == "1"


@given(
    account=st.text(max_size=64),
    host=st.text(max_size=64),
    target=st.text(max_size=256),
    details=st.dictionaries(st.text(max_size=20), st.text(max_size=3000), max_size=4),
)
def test_whatever_was_typed_the_schema_holds(
    account: str, host: str, target: str, details: dict[str, str]
) -> None:
    entry = record(account=account, host=host, target=target, details=details)
    read(entry)
    assert len(message_of(entry, "UNIBIOMED").encode("utf-8", "replace")) < 32768


def test_a_full_file_starts_anew_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with path.open("wb") as file:
        file.truncate(50_000_001)
    append_message(record(), "UNIBIOMED", path)
    assert path.read_text().count("<AuditMessage>") == 1
    assert path.with_suffix(".log.1").exists()
    assert path.stat().st_mode & 0o777 == 0o600
