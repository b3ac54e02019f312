from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, text

from db.jobs import JobState
from db.models import Instance, Job, Quarantine, Refusal, Study, StudyAssociation
from db.session import Database
from dicom_node.archive import Archive
from dicom_node.errors import FinalError, RetriableError
from dicom_node.incoming import StoredFile
from dicom_node.peers import Refusal as RefusedAssociation
from dicom_node.services.events import AssociationEnded, Quarantined, ReceivedInstance
from workflows.intake import Registrar


def received(number: int = 1, **changes: Any) -> ReceivedInstance:
    study = changes.pop("study", "1.2.3")
    uid = f"{study}.1.{number}"
    values: dict[str, Any] = {
        "calling_ae_title": "MODALITY",
        "called_ae_title": "UNIBIOMED",
        "peer_host": "127.0.0.1",
        "association": "a1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": uid,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "attributes": {"PatientID": "P1", "Modality": "CT"},
        "file": StoredFile(f"studies/{study}/{study}.1/{uid}.dcm", 10, f"{number:064x}", "new"),
    }
    return ReceivedInstance(**(values | changes))


def ended(association: str = "a1") -> AssociationEnded:
    return AssociationEnded(
        association, "MODALITY", "UNIBIOMED", "127.0.0.1", frozenset({"1.2.3"}), 1, 0, 0, 0, 0,
        "released", 1.0,
    )  # fmt: skip


def count(database: Database, model: Any) -> int:
    with database.reading() as session:
        return session.execute(select(func.count()).select_from(model)).scalar_one()


@pytest.fixture
def registrar(database: Database) -> Iterator[Registrar]:
    registrar = Registrar(database, listener="test")
    registrar.start()
    yield registrar
    registrar.stop()


def test_an_instance_is_committed_when_the_call_returns(
    registrar: Registrar, database: Database
) -> None:
    registrar.on_stored(received())
    assert (count(database, Instance), count(database, Job)) == (1, 1)


def test_many_associations_share_a_commit(database: Database) -> None:
    registrar = Registrar(database, listener="test")
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(registrar.on_stored, received(number)) for number in range(20)]
        while registrar.backlog < 20:
            time.sleep(0.001)
        commits: list[object] = []
        event.listen(database.engine, "commit", commits.append)
        registrar.start()
        for call in calls:
            call.result(30)
    registrar.stop()
    assert count(database, Instance) == 20
    assert len(commits) == 2  # closing what an earlier run left, and the batch


def test_the_end_of_an_association_releases_its_studies(database: Database) -> None:
    released: list[Sequence[int]] = []
    told = threading.Event()

    def tell(studies: Sequence[int]) -> None:
        released.append(studies)
        told.set()

    registrar = Registrar(database, listener="test", on_released=tell)
    registrar.start()
    registrar.on_stored(received())
    registrar.on_released(ended())
    assert told.wait(20)
    registrar.stop()
    assert released == [[1]]
    with database.reading() as session:
        assert session.get_one(Study, 1).released_at is not None


def test_a_listener_that_died_leaves_nothing_open(registrar: Registrar, database: Database) -> None:
    registrar.on_stored(received())
    registrar.stop()
    second = Registrar(database, listener="test")
    second.start()
    second.stop()
    with database.reading() as session:
        assert session.scalars(select(StudyAssociation.outcome)).one() == "lost"


def test_refusals_and_quarantine_are_noted(registrar: Registrar, database: Database) -> None:
    registrar.on_refused(RefusedAssociation("STRANGER", "UNIBIOMED", "10.0.0.1", 1, 1, 3, "no"))
    registrar.on_quarantined(
        Quarantined(
            "A", "B", "h", "a1", "1.2", "1.2.3", "1.2", "quarantine/1.dcm", 9, "0" * 64, 0xC000,
            "cut off",
        )
    )  # fmt: skip
    with database.reading() as session:
        refusal = session.scalars(select(Refusal)).one()
        quarantine = session.scalars(select(Quarantine)).one()
    assert (refusal.calling_ae_title, refusal.reason) == ("STRANGER", "1/1/3")
    assert (quarantine.peer_host, quarantine.reason) == ("h", "cut off")


def test_a_second_try_of_a_conflict_is_still_a_conflict(
    registrar: Registrar, database: Database
) -> None:
    registrar.on_stored(received())
    beside = StoredFile("studies/1/1/1~0123456789abcdef.dcm", 10, "f" * 64, "same")
    registrar.on_stored(received(file=beside))
    with database.reading() as session:
        assert session.scalars(select(Instance.conflict).order_by(Instance.id)).all() == [
            False,
            True,
        ]


def test_a_locked_database_becomes_an_error_in_time_and_two_lines(
    sqlite_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(sqlite_database.url, busy_seconds=0.05)
    registrar = Registrar(database, listener="test", deadline_seconds=1.0)
    registrar.start()
    with sqlite_database.session() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(RetriableError, match="send again later"):
            registrar.on_stored(received())
    registrar.on_stored(received())
    registrar.stop()
    database.dispose()
    assert count(sqlite_database, Instance) == 1
    told = [one.getMessage() for one in caplog.records if one.name == "db.outage"]
    assert len(told) == 2
    assert "does not answer" in told[0] and "answers again" in told[1]


def test_it_waits_for_a_lock_that_goes(sqlite_database: Database) -> None:
    database = Database(sqlite_database.url, busy_seconds=0.05)
    registrar = Registrar(database, listener="test")
    registrar.start()
    with ThreadPoolExecutor(1) as pool:
        with sqlite_database.session() as session:
            session.execute(text("SELECT 1"))
            call = pool.submit(registrar.on_stored, received())
            time.sleep(0.2)
            assert not call.done()
        call.result(20)
    registrar.stop()
    database.dispose()


def test_what_the_database_never_takes_does_not_keep_the_others_out(database: Database) -> None:
    registrar = Registrar(database, listener="test")
    broken = received(2, association=None)  # NOT NULL in the table
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(registrar.on_stored, one) for one in (broken, received(1))]
        while registrar.backlog < 2:
            time.sleep(0.001)
        registrar.start()
        with pytest.raises(FinalError, match="refuses this object"):
            calls[0].result(20)
        calls[1].result(20)
    assert registrar.alive
    registrar.stop()
    assert count(database, Instance) == 1


def test_what_the_driver_cannot_take_does_not_end_the_writer(registrar: Registrar) -> None:
    # sqlite3 raises OverflowError, which SQLAlchemy hands on as it is.
    huge = StoredFile("studies/1.2.3/1.2.3.1/1.2.3.1.2.dcm", 2**80, "0" * 64, "new")
    with pytest.raises(FinalError, match="refuses this object"):
        registrar.on_stored(received(2, file=huge))
    assert registrar.alive
    registrar.on_stored(received(1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_leaves_nobody_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    registrar = Registrar(database, listener="test")
    reached = threading.Event()

    def commit(entries: Sequence[Any]) -> list[int]:
        reached.set()
        while registrar.backlog < 1:
            time.sleep(0.001)
        raise SystemExit("nothing catches this")

    monkeypatch.setattr(registrar, "_commit", commit)
    registrar.start()
    registrar.on_released(ended())
    assert reached.wait(20)
    with pytest.raises(RetriableError, match="stopping"):
        registrar.on_stored(received())
    registrar.stop()
    assert not registrar.alive


def test_associations_in_full_flow_share_a_commit(
    registrar: Registrar, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.intake._GATHER_SECONDS", 5.0)
    monkeypatch.setattr("workflows.intake._SENDING_SECONDS", 60.0)
    registrar.on_stored(received(1, association="a1"))
    sizes: list[int] = []
    commit = registrar._commit

    def counted(some: list[Any]) -> object:
        sizes.append(len(some))
        return commit(some)

    monkeypatch.setattr(registrar, "_commit", counted)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(registrar.on_stored, received(2, association="a2"))
        two = pool.submit(registrar.on_stored, received(3, association="a1"))
        one.result(20)
        two.result(20)
    assert sizes == [2]


def test_a_stopping_node_takes_nothing_more(registrar: Registrar) -> None:
    registrar.stop()
    assert not registrar.alive
    with pytest.raises(RetriableError, match="stopping"):
        registrar.on_stored(received())
    registrar.on_released(ended())


def test_a_file_deleted_meanwhile_is_asked_for_again(
    sqlite_database: Database, tmp_path: Path
) -> None:
    archive = Archive(tmp_path / "archive", reserve_bytes=0)
    registrar = Registrar(sqlite_database, listener="test", archive=archive)
    registrar.start()
    stored = received().file
    again = StoredFile(stored.path, stored.size, stored.sha256, "same")
    with pytest.raises(RetriableError, match="just deleted by age"):
        registrar.on_stored(received(file=again))
    registrar.stop()


def test_one_waiting_job_however_many_associations(
    registrar: Registrar, database: Database
) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            pool.submit(registrar.on_stored, received(number, association=f"a{number % 8}"))
    with database.reading() as session:
        assert session.scalars(select(Job.state)).all() == [JobState.WAITING]
        study = session.get_one(Study, 1)
        assert (study.number_of_instances, study.arrivals) == (40, 40)
