"""Task Performer of worklists elsewhere (IHE AIW-I): claim, have done, tell, complete.

The jobs of the study do the work; this claims what the managers offer, sees that the images come,
and tells how it stands. Each manager is asked by one worker at a time, in turns. What is about to
be claimed is written down before, with its Transaction UID: a worker that dies in between, or an
answer that is lost, leaves no workitem behind that is ours and that nobody knows of.
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import Any, Final

from db.catalog import study_by_uid
from db.models_performing import Claim
from db.performing import (
    add_claim,
    change_claim,
    failures_of,
    forget_claim,
    known_claims,
    note_contact,
    open_claims,
    take_turn,
)
from db.worklist import WorkStatus, cancel_work, status_of_study
from dicom_node.errors import DicomNodeError, FinalError, RetriableError
from dicom_node.objects.identifiers import uid_drawn
from dicom_node.services.dicomweb.worklist import STATE, ConflictError, text_of
from dicom_node.services.performer_words import (
    cancel_wish,
    cancelled_words,
    input_study,
    is_ready,
    performed_words,
    progress_words,
    workitem_uid,
)
from dicom_node.services.worklist_client import Ending, WebWorklist
from workflows.fetching import fetch_study
from workflows.network import worklist_of
from workflows.node import Node
from workflows.worklist import outputs_in
from workflows.worklist_settings import WorklistSettings

_LOG = logging.getLogger(__name__)

_TURN: Final = timedelta(minutes=10)
"""How long a worker keeps the others off a manager; then it counts as dead."""
_LONGEST_SECONDS: Final = 900.0
_MOST_OFFERED: Final = 100


def perform_worklists(node: Node) -> None:
    """Take a turn at each manager that is due."""
    for settings in node.settings.worklists:
        now = node.now()
        with node.database.session() as session:
            is_ours = take_turn(session, settings.name, now, now + _TURN)
        if is_ours:
            _take_turn(node, settings)


def _take_turn(node: Node, settings: WorklistSettings) -> None:
    """Ask one manager, and keep how it answered and when it is asked again."""
    sentence, wait = "", settings.poll_seconds
    try:
        with WebWorklist(worklist_of(settings, node.settings.tls)) as worklist:
            Performer(node, settings, worklist).take_turn()
    except DicomNodeError as error:
        sentence = error.sentence
        with node.database.reading() as session:
            failures = failures_of(session, settings.name)
        # Jitter: not all performers come back to it in the same moment.
        wait = min(wait * 2 ** min(failures + 1, 16), _LONGEST_SECONDS) * random.uniform(0.8, 1.2)
        if isinstance(error, RetriableError) and error.after_seconds is not None:
            wait = max(wait, error.after_seconds)
        if failures == 0:
            _LOG.warning("worklist %s: %s; it is asked again", settings.name, sentence)
    now = node.now()
    with node.database.session() as session:
        note_contact(session, settings.name, sentence, now, now + timedelta(seconds=wait))


class Performer:
    """One turn at one manager.

    Parameters
    ----------
    node
        Whose work it is.
    settings
        Of the manager.
    worklist
        A connection to it.
    """

    def __init__(self, node: Node, settings: WorklistSettings, worklist: WebWorklist) -> None:
        self._node = node
        self._settings = settings
        self._worklist = worklist

    def take_turn(self) -> None:
        """Go on with what is claimed, then claim more.

        Raises
        ------
        DicomNodeError
            The manager does not answer, or not as it should.
        """
        with self._node.database.reading() as session:
            claims = open_claims(session, self._settings.name)
        for claim in claims:
            self._go_on(claim)
        with self._node.database.reading() as session:
            room = self._settings.at_once - len(open_claims(session, self._settings.name))
        if room > 0:
            for workitem in self._offered()[:room]:
                self._claim(workitem)

    def _offered(self) -> list[dict[str, Any]]:
        """Return workitems that can be claimed and never were."""
        settings = self._settings
        filters = {"ProcedureStepState": "SCHEDULED"}
        if settings.station:
            filters["ScheduledStationNameCodeSequence.CodeValue"] = settings.station
        if settings.workitem_code:
            filters["ScheduledWorkitemCodeSequence.CodeValue"] = settings.workitem_code
        found = {
            uid: workitem
            for workitem in self._worklist.search(filters, _MOST_OFFERED)
            # Not every manager heeds the filters.
            if text_of(workitem, STATE) == "SCHEDULED" and (uid := workitem_uid(workitem))
        }
        with self._node.database.reading() as session:
            known = known_claims(session, settings.name, found.keys())
        return [workitem for uid, workitem in found.items() if uid not in known]

    def _claim(self, offered: dict[str, Any]) -> None:
        uid = workitem_uid(offered)
        # A search may answer with a part of the attributes alone.
        workitem = self._worklist.get(uid)
        if workitem is None or not is_ready(workitem):
            return
        study = input_study(workitem)
        if not study:
            # Another performer may understand it.
            _LOG.warning(
                "worklist %s: workitem %s names no single study as its input; it is left there",
                self._settings.name,
                uid,
            )
            return
        transaction = uid_drawn()
        with self._node.database.session() as session:
            add_claim(
                session, self._settings.name, uid, study, transaction, workitem, self._node.now()
            )
        try:
            self._worklist.claim(uid, transaction)
        except ConflictError as error:
            with self._node.database.session() as session:
                forget_claim(session, self._settings.name, uid)
            _LOG.info("worklist %s: %s", self._settings.name, error.sentence)
            return
        self._claimed(uid, study)

    def _claimed(self, uid: str, study: str) -> None:
        self._change(uid, state="performing")
        _LOG.info("worklist %s: workitem %s for study %s is ours", self._settings.name, uid, study)

    def _go_on(self, claim: Claim) -> None:
        uid, transaction = claim.workitem_uid, claim.transaction_uid
        if claim.state == "claiming":
            # The answer to the claim was lost, or we were. If it is ours we can write to it.
            try:
                self._worklist.update(uid, transaction, progress_words(0.0, "claimed"))
            except ConflictError:
                self._claim_again(claim)
                return
            self._claimed(uid, claim.study_instance_uid)
        workitem = self._worklist.get(uid)
        if workitem is None or text_of(workitem, STATE) in ("COMPLETED", "CANCELED"):
            self._give_up(claim, "the manager has ended it", tell=False)
            return
        wish = cancel_wish(workitem)
        if wish is not None:
            self._give_up(claim, f"asked for by the worklist: {wish}", tell=True)
            return
        with self._node.database.reading() as session:
            status = status_of_study(session, claim.study_instance_uid)
            is_there = study_by_uid(session, claim.study_instance_uid) is not None
        if status.step == "COMPLETED":
            self._complete(claim, status)
        elif status.step == "CANCELED":
            self._give_up(claim, status.sentence, tell=True)
        elif status.step == "SCHEDULED" and self._is_overdue(claim):
            hours = self._settings.wait_hours
            self._give_up(claim, f"no work began within {hours:g} h: {status.sentence}", tell=True)
        elif not is_there and self._may_fetch(claim):
            self._fetch(claim)
        elif abs(status.progress - claim.told) >= 1.0 or status.sentence != claim.sentence:
            self._worklist.update(
                uid, transaction, progress_words(status.progress, status.sentence)
            )
            self._change(uid, told=status.progress, sentence=status.sentence)

    def _claim_again(self, claim: Claim) -> None:
        try:
            self._worklist.claim(claim.workitem_uid, claim.transaction_uid)
        except ConflictError:
            with self._node.database.session() as session:
                forget_claim(session, self._settings.name, claim.workitem_uid)
            return
        self._claimed(claim.workitem_uid, claim.study_instance_uid)

    def _is_overdue(self, claim: Claim) -> bool:
        waits = timedelta(hours=self._settings.wait_hours)
        return claim.claimed_at + waits <= self._node.now()

    def _may_fetch(self, claim: Claim) -> bool:
        again = timedelta(seconds=_LONGEST_SECONDS)
        asked = claim.images_at
        return self._settings.fetch and (asked is None or asked + again <= self._node.now())

    def _fetch(self, claim: Claim) -> None:
        """Fetch the images of a study of which nothing has arrived."""
        uid, settings = claim.workitem_uid, self._settings
        self._change(uid, images_at=self._node.now())
        try:
            count = fetch_study(
                self._node, self._worklist.destination, claim.dataset, settings.name
            )
            sentence = f"{count} images were fetched"
        except DicomNodeError as error:
            # They may come by another way, or later.
            sentence = f"its images cannot be fetched: {error.sentence}"
            _LOG.warning("worklist %s: %s", settings.name, sentence)
        self._worklist.update(uid, claim.transaction_uid, progress_words(0.0, sentence))
        self._change(uid, told=0.0, sentence=sentence)

    def _complete(self, claim: Claim, status: WorkStatus) -> None:
        identity = self._node.settings.node
        told = performed_words(
            claim.dataset,
            identity.station,
            identity.ae_title,
            claim.claimed_at,
            self._node.now(),
            outputs_in(status),
        )
        uid, transaction = claim.workitem_uid, claim.transaction_uid
        self._worklist.update(uid, transaction, {**told, **progress_words(100.0, status.sentence)})
        self._end(claim, "COMPLETED", f"{len(status.outputs)} results")

    def _give_up(self, claim: Claim, reason: str, *, tell: bool) -> None:
        """End the work of a workitem that has no result."""
        with self._node.database.session() as session:
            cancel_work(session, claim.study_instance_uid, reason, self._node.now())
        if not tell:
            self._ended(claim, "taken away", reason)
            return
        words = cancelled_words(reason, self._node.now())
        self._worklist.update(claim.workitem_uid, claim.transaction_uid, words)
        self._end(claim, "CANCELED", reason)

    def _end(self, claim: Claim, ending: Ending, sentence: str) -> None:
        try:
            self._worklist.end(claim.workitem_uid, claim.transaction_uid, ending)
        except ConflictError as error:
            # After a lost answer it is over already, as we wanted it.
            there = self._worklist.get(claim.workitem_uid)
            if there is not None and text_of(there, STATE) != ending:
                raise FinalError(f"workitem {claim.workitem_uid}: {error.sentence}") from error
        self._ended(claim, ending, sentence)

    def _ended(self, claim: Claim, outcome: str, sentence: str) -> None:
        self._change(
            claim.workitem_uid,
            state="ended",
            outcome=outcome,
            sentence=sentence,
            ended_at=self._node.now(),
        )
        _LOG.info(
            "worklist %s: workitem %s is %s: %s",
            self._settings.name,
            claim.workitem_uid,
            outcome,
            sentence,
        )

    def _change(self, uid: str, **values: Any) -> None:
        with self._node.database.session() as session:
            change_claim(session, self._settings.name, uid, **values)
