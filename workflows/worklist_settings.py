"""One entry of ``worklists`` in ``node.yaml``: a worklist elsewhere whose work this node does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicom_node.services.tls import ProfileName
from workflows.destination_settings import WebServiceSettings
from workflows.setting_values import FileName, Flag, Name, Seconds

Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\\*?]+$")]


class WorklistSettings(WebServiceSettings):
    """A worklist manager (IHE AIW-I) that is asked by UPS-RS for workitems.

    Of its SCHEDULED workitems those are claimed that are addressed to ``station`` and have the
    ``workitem_code``; without either, all.
    """

    name: Name
    station: Code | None = None
    workitem_code: Code | None = None
    poll_seconds: Seconds = 15.0
    at_once: Annotated[int, Field(strict=True, ge=1, le=1000)] = 4
    fetch: Flag = True
    wait_hours: Annotated[float, Field(strict=True, gt=0, le=24 * 30)] = 24.0
    connection_timeout_seconds: Seconds = 10.0
    answer_timeout_seconds: Seconds = 60.0
    tls_profile: ProfileName | None = None
    certificate: FileName | None = None
