"""IHE profiles: which actors and transactions are done, and which test shows it.

A line stands here only for what the code does and a test proves. The tests say so themselves, by
the marker `ihe`; `tests/deploy/test_statement.py` holds the two against each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Final, NamedTuple

from deploy.statement.markdown import table


class Transaction(NamedTuple):
    """One transaction of an actor.

    Attributes
    ----------
    how
        By which service.
    shown_by
        Tests that prove it, as pytest names them.
    """

    name: str
    how: str
    shown_by: tuple[str, ...]

    @property
    def numbers(self) -> list[str]:
        """Its numbers in the Technical Framework: one for most."""
        return re.findall(r"RAD-\d+", self.name)


class Actor(NamedTuple):
    """An actor of a profile, with what of it is done and what is left out."""

    profile: str
    actor: str
    options: str
    transactions: tuple[Transaction, ...]
    left_out: str

    @property
    def acronym(self) -> str:
        """The profile's, as ``AIW-I``."""
        return self.profile.partition("(")[2].partition(")")[0]

    def claims(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield each claim: acronym, actor, number of the transaction, test that shows it."""
        for transaction in self.transactions:
            for number, test in product(transaction.numbers, transaction.shown_by):
                yield self.acronym, self.actor, number, test


_DELIVERY: Final = ("tests/e2e/test_delivery.py::test_phantom_by_storescu",)
_COMMITMENT: Final = (
    "tests/e2e/test_commitment.py::test_orthanc_commits_to_results",
    "tests/workflows/test_committing.py::test_a_report_hours_later_delivers_the_job",
)
_COMMITS: Final = (
    "tests/e2e/test_commitment.py::test_the_node_commits_to_what_it_holds_and_says_what_it_lacks",
)
_NOTES: Final = ("tests/workflows/test_fallbacks.py::test_each_destination_gets_what_it_asks_for",)
_STORED_BY_WEB: Final = (
    "tests/workflows/test_delivery_web.py::test_results_are_stored_and_proven_at_orthanc",
)
_QUERY: Final = (
    "tests/e2e/test_query_retrieve.py::test_studies_are_found_by_name_date_and_modality",
    "tests/e2e/test_query_retrieve.py::test_results_are_found_and_retrieved_like_images",
)
_RETRIEVE: Final = (
    "tests/e2e/test_query_retrieve.py::test_movescu_moves_a_study_to_a_known_entity",
    "tests/e2e/test_query_retrieve.py::test_results_are_found_and_retrieved_like_images",
)
_WEB: Final = ("tests/e2e/test_dicomweb.py::test_a_study_in_by_stow_and_its_results_out_by_wado",)
_PERFORMER: Final = ("tests/workflows/test_performing.py::test_from_claim_to_completion",)
_FETCHES: Final = ("tests/workflows/test_performing.py::test_images_are_fetched_from_the_manager",)
_MANAGER: Final = (
    "tests/e2e/test_worklist.py::test_a_workitem_becomes_results_and_another_is_cancelled",
)
_STEPS: Final = (
    "tests/workflows/test_announcing.py"
    "::test_a_study_waits_for_its_procedure_step_and_its_last_instance",
)
_AVAILABLE: Final = (
    "tests/workflows/test_announcing.py::test_a_notification_completes_a_study_before_it_was_quiet",
)
_REJECTION: Final = ("tests/workflows/test_withdrawal.py::test_the_note_goes_where_it_is_acted_on",)

ACTORS: Final[tuple[Actor, ...]] = (
    Actor(
        "AI Results (AIR), Trial Implementation",
        "Evidence Creator",
        "Comprehensive 3D SR (TID 1500) as root, Segmentation, Key Object Selection",
        (
            Transaction("Creator Images Stored [RAD-18]", "C-STORE of SEG", _DELIVERY),
            Transaction("Evidence Documents Stored [RAD-43]", "C-STORE of SR", _DELIVERY),
            Transaction(
                "Key Image Note Stored [RAD-29]", "C-STORE of KOS, where a destination asks",
                _NOTES,
            ),
            Transaction("Storage Commitment [RAD-10]", "N-ACTION, N-EVENT-REPORT", _COMMITMENT),
            Transaction("Store Instances Over the Web [RAD-108]", "STOW-RS", _STORED_BY_WEB),
        ),
        "Parametric Maps. The content rules that were known without the text of the supplement are "
        "checked before each sending (`unibiomed-node lint`); no Connectathon was attended.",
    ),
    Actor(
        "AI Results (AIR), Trial Implementation",
        "Image Manager / Image Archive",
        "of its own results, and of images while they are kept",
        (
            Transaction("Query Images [RAD-14]", "C-FIND", _QUERY),
            Transaction("Retrieve Images [RAD-16]", "C-MOVE, C-GET", _RETRIEVE),
            Transaction("QIDO-RS Query [RAD-129]", "QIDO-RS", _WEB),
            Transaction("WADO-RS Retrieve [RAD-107]", "WADO-RS", _WEB),
        ),
        "It is no archive for results of other creators: they are taken in and kept as any "
        "received instance, for as long as `retention` says.",
    ),
    Actor(
        "AI Workflow for Imaging (AIW-I), Trial Implementation",
        "Task Performer",
        "Pull Workflow",
        (
            Transaction("Query UPS Workitems [RAD-81]", "UPS-RS search", _PERFORMER),
            Transaction("Claim UPS Workitem [RAD-82]", "UPS-RS change of state", _PERFORMER),
            Transaction("Get UPS Workitem Contents [RAD-83]", "UPS-RS retrieve", _PERFORMER),
            Transaction("Update UPS Workitem [RAD-84]", "UPS-RS update", _PERFORMER),
            Transaction("Complete UPS Workitem [RAD-85]", "UPS-RS change of state", _PERFORMER),
            Transaction("WADO-RS Retrieve [RAD-107]", "WADO-RS of the input", _FETCHES),
        ),
        "Subscriptions and event channels [RAD-86, RAD-87, RAD-109]: a wish to cancel is read in "
        "the workitem. DIMSE services of UPS.",
    ),
    Actor(
        "AI Workflow for Imaging (AIW-I), Trial Implementation",
        "Task Manager",
        "Pull Workflow",
        (
            Transaction("Create UPS Workitem [RAD-80]", "UPS-RS", _MANAGER),
            Transaction("Query UPS Workitems [RAD-81]", "UPS-RS", _MANAGER),
            Transaction("Claim UPS Workitem [RAD-82]", "UPS-RS", _MANAGER),
            Transaction("Get UPS Workitem Contents [RAD-83]", "UPS-RS", _MANAGER),
            Transaction("Update UPS Workitem [RAD-84]", "UPS-RS", _MANAGER),
            Transaction("Complete UPS Workitem [RAD-85]", "UPS-RS", _MANAGER),
            Transaction("Request UPS Workitem Cancellation [RAD-88]", "UPS-RS", _MANAGER),
        ),
        "Subscriptions and event channels [RAD-86, RAD-87, RAD-109]. DIMSE services of UPS.",
    ),
    Actor(
        "Imaging Object Change Management (IOCM)",
        "Change Requester",
        "Rejection of results for quality, for patient safety, by retention",
        (
            Transaction(
                "Rejection Note Stored [RAD-66]", "C-STORE of KOS",
                _REJECTION,
            ),
        ),
        "Only results of this node are withdrawn. Corrected instances are new ones that name their "
        "predecessor.",
    ),
    Actor(
        "Scheduled Workflow (SWF.b)",
        "Evidence Creator, Image Manager (in part)",
        "",
        (
            Transaction(
                "Modality Procedure Step In Progress [RAD-6], Completed [RAD-7]",
                "N-CREATE, N-SET as SCP", _STEPS,
            ),
            Transaction(
                "Instance Availability Notification [RAD-49]", "N-CREATE as SCP",
                _AVAILABLE,
            ),
            Transaction(
                "Storage Commitment [RAD-10]", "as SCP", _COMMITS
            ),
        ),
        "Everything that concerns orders and modality worklists: conformance to the profile as a "
        "whole is not claimed.",
    ),
)  # fmt: skip


def actors_table() -> str:
    """Return profiles and actors."""
    rows = [(one.profile, one.actor, one.options or "none") for one in ACTORS]
    return table(("integration profile", "actor", "options"), rows)


def transactions_table() -> str:
    """Return the transactions of all actors, and what shows each."""
    return table(("profile and actor", "transaction", "by", "shown by"), _transactions())


def _transactions() -> Iterator[tuple[str, str, str, str]]:
    for one in ACTORS:
        who = f"{one.profile.partition(',')[0]}: {one.actor}"
        for transaction in one.transactions:
            tests = ", ".join(f"`{test}`" for test in transaction.shown_by)
            yield who, transaction.name, transaction.how, tests


def left_out_table() -> str:
    """Return what of the profiles is not done."""
    rows = [(f"{one.profile.partition(',')[0]}: {one.actor}", one.left_out) for one in ACTORS]
    return table(("profile and actor", "not done, or done otherwise"), rows)
