"""The DICOMweb server (PS3.18): its addresses, who may use them, and its answers to mistakes."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from dicom_node.archive import Archive
from dicom_node.errors import FinalError
from dicom_node.peers import REJECTED_PERMANENT, Refusal
from dicom_node.services.dicomweb.access import CHALLENGE, Denied, WebAccess, WebService, WebUser
from dicom_node.services.dicomweb.addresses import ADDRESSES
from dicom_node.services.dicomweb.bodies import CLOSE, boundary_of, pieces_of, too_long
from dicom_node.services.dicomweb.errors import RETRY_LATER, HttpError, answer_errors, count
from dicom_node.services.dicomweb.files import (
    EXPLICIT,
    bulk_value,
    metadata,
    whole_file,
)
from dicom_node.services.dicomweb.frames import (
    encoded_frames,
    number_of_frames,
    rendered,
)
from dicom_node.services.dicomweb.multipart import (
    MultipartError,
    MultipartReader,
    MultipartWriter,
    media_type,
)
from dicom_node.services.dicomweb.negotiation import DICOM, DICOM_JSON, OCTETS, PICTURES
from dicom_node.services.dicomweb.requests import (
    PLACES,
    accepted_by,
    frames_of,
    host_of,
    syntaxes_of,
    uids_of,
    view_of,
)
from dicom_node.services.dicomweb.search import address, answers, understand
from dicom_node.services.dicomweb.store import Storing
from dicom_node.services.dicomweb.worklist import Worklist
from dicom_node.services.dicomweb.worklist_routes import WorklistRoutes
from dicom_node.services.events import AssociationEnded, Quarantined, ReceivedInstance
from dicom_node.services.query import UNIQUE_KEYS, Catalog, Level, Match, Query, matching_of
from dicom_node.services.reception import AssociationRecord

LOGGER = logging.getLogger(__name__)

CALLER: Final = "DICOMWEB"
"""What stands in place of a calling AE title."""
# Of an A-ASSOCIATE-RJ: nothing of PS3.8, for the node's own count of who was turned away.
_SOURCE_WEB: Final = 0


@dataclass(frozen=True, slots=True)
class WebSettings:
    """How the server answers.

    Attributes
    ----------
    ae_title : str
        The node's, for Retrieve AE Title and as the called AE title of what is stored.
    most_bytes : int
        The longest body of a STOW-RS request.
    read_timeout : float
        Seconds that a client may be silent in the middle of a body.
    url : str
        What stands before ``/studies`` in answers. Not what the client says that it called: the
        Host header is its own text.
    """

    ae_title: str
    url: str
    most_bytes: int = 8 << 30
    read_timeout: float = 60.0
    extra_storage_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebServices:
    """What the server works with; handed in by those above.

    Attributes
    ----------
    access : callable
        Returns the table of users in force; asked at each request.
    on_stored, on_quarantined, on_released, on_refused : callable
        As of ``storage_scp.StorageScp``; a STOW-RS request counts as an association.
    """

    settings: WebSettings
    catalog: Catalog
    archive: Archive
    access: Callable[[], WebAccess]
    on_stored: Callable[[ReceivedInstance], None]
    on_quarantined: Callable[[Quarantined], None]
    on_released: Callable[[AssociationEnded], None]
    on_refused: Callable[[Refusal], None]
    worklist: Worklist | None = None


def create_app(services: WebServices) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    services : WebServices
        What it works with.
    """
    app = FastAPI(title="DICOMweb", docs_url=None, redoc_url=None, openapi_url=None)
    web = DicomWeb(services)
    answering: dict[str, Callable[..., Any]] = {
        "retrieve": web.retrieve,
        "metadata": web.metadata,
        "bulk_data": web.bulk_data,
        "frames": web.frames,
        "rendered": web.rendered,
        "store": web.store,
    }
    if services.worklist is not None:
        items = WorklistRoutes(services.worklist, services.settings.url, web.admit)
        answering |= {
            "create_workitem": items.create,
            "search_workitems": items.search,
            "retrieve_workitem": items.retrieve,
            "update_workitem": items.update,
            "change_workitem_state": items.change_state,
            "cancel_workitem": items.cancel,
        }
    for one in ADDRESSES:
        if one.level is not None:
            app.add_api_route(one.path, web.searching(one.level), methods=[one.method])
        elif one.transaction in answering:
            app.add_api_route(one.path, answering[one.transaction], methods=[one.method])
    answer_errors(app, web.note_bad_input)
    return app


class DicomWeb:
    """The answers, one method for each kind of address.

    Those that read files are plain functions: FastAPI runs them in threads.
    """

    def __init__(self, services: WebServices) -> None:
        self._services = services

    def searching(self, level: Level) -> Callable[[Request], Response]:
        """Return what answers a search at a level (PS3.18 10.6)."""

        def search(request: Request) -> Response:
            self.admit(request, "query")
            if not accepted_by(request).json():
                raise HttpError(406, f"searches are answered as {DICOM_JSON}")
            catalog = self._services.catalog
            asked = understand(level, uids_of(request), request.query_params.multi_items(), catalog)
            settings = self._services.settings
            found = list(answers(asked, catalog, settings.ae_title, self._services.settings.url))
            headers = {}
            if asked.notes:
                # RFC 9111 5.5; PS3.18 8.3.4.6 asks for it.
                headers["Warning"] = f'299 - "{"; ".join(asked.notes)[:500]}"'
            return JSONResponse(found, headers=headers, media_type=DICOM_JSON)

        return search

    def retrieve(self, request: Request) -> Response:
        """Answer with whole objects (PS3.18 10.4.1.1.1 to 10.4.1.1.3)."""
        self.admit(request, "retrieve")
        accepted = accepted_by(request)
        matches = self._matches(request)
        entry = accepted.multipart(DICOM)
        if entry is None:
            if "instance" in request.path_params and accepted.single(DICOM):
                _, pieces = whole_file(_path(matches[0]), syntaxes_of(accepted, DICOM))
                return StreamingResponse(pieces, media_type=DICOM)
            raise HttpError(406, f'objects are answered as multipart/related; type="{DICOM}"')
        syntaxes = [entry.parameters.get("transfer-syntax", "")]
        syntaxes = [one or EXPLICIT for one in syntaxes]
        writer = MultipartWriter(DICOM)

        def part(match: Match) -> tuple[bytes, Iterator[bytes]]:
            syntax, pieces = whole_file(_path(match), syntaxes)
            return writer.head(f"{DICOM}; transfer-syntax={syntax}"), pieces

        # The first now: what cannot be given is told by a status.
        first = part(matches[0])
        rest = (part(match) for match in matches[1:])
        body = writer.body(_chain(first, rest))
        return StreamingResponse(body, media_type=writer.content_type)

    def metadata(self, request: Request) -> Response:
        """Answer with attributes alone (PS3.18 10.4.1.1.2)."""
        self.admit(request, "retrieve")
        if not accepted_by(request).json():
            raise HttpError(406, f"metadata are answered as {DICOM_JSON}")
        base = self._services.settings.url
        matches = self._matches(request)

        def text() -> Iterator[str]:
            before = "["
            for match in matches:
                try:
                    found = metadata(_path(match), address(base, match.attributes, Level.IMAGE))
                except FinalError as error:
                    LOGGER.warning("metadata left out: %s", error.sentence)
                    continue
                yield before + json.dumps(found, ensure_ascii=False)
                before = ","
            yield "[]" if before == "[" else "]"

        return StreamingResponse(text(), media_type=DICOM_JSON)

    def bulk_data(self, request: Request) -> Response:
        """Answer with one value of an object (PS3.18 10.4.1.1.5)."""
        self.admit(request, "retrieve")
        path = _path(self._matches(request)[0])
        place = request.path_params["place"].split("/")
        if place == ["7FE00010"]:
            return self._frames(request, path, range(1, number_of_frames(path) + 1))
        try:
            value = bulk_value(path, place)
        except (LookupError, ValueError) as error:
            raise HttpError(404, "the object has no such value") from error
        accepted = accepted_by(request)
        writer = MultipartWriter(OCTETS)
        if accepted.multipart(OCTETS) is not None:
            body = writer.body([(writer.head(), [value])])
            return Response(b"".join(body), media_type=writer.content_type)
        if accepted.single(OCTETS):
            return Response(value, media_type=OCTETS)
        raise HttpError(406, f"bulk data are answered as {OCTETS}")

    def frames(self, request: Request) -> Response:
        """Answer with frames (PS3.18 10.4.1.1.6)."""
        self.admit(request, "retrieve")
        return self._frames(request, _path(self._matches(request)[0]), frames_of(request))

    def _frames(self, request: Request, path: Path, numbers: Sequence[int]) -> Response:
        accepted = accepted_by(request)
        if len(numbers) == 1 and not accepted.parts() and accepted.single(OCTETS):
            encoded = encoded_frames(path, numbers, [media_type(OCTETS)])
            return Response(next(encoded.frames), media_type=OCTETS)
        encoded = encoded_frames(path, numbers, accepted.parts())
        writer = MultipartWriter(encoded.media_type)
        body = writer.body((writer.head(), [frame]) for frame in encoded.frames)
        return StreamingResponse(body, media_type=writer.content_type)

    def rendered(self, request: Request) -> Response:
        """Answer with a picture (PS3.18 10.4.1.1.3, 10.4.1.1.4)."""
        self.admit(request, "retrieve")
        form = accepted_by(request).single(*PICTURES)
        if form is None:
            raise HttpError(406, "pictures are answered as image/jpeg or image/png")
        view = view_of(request)
        path = _path(self._matches(request)[0])
        numbers = frames_of(request) if "frames" in request.path_params else [1]
        if len(numbers) != 1:
            raise HttpError(400, "one frame is rendered at a time")
        return Response(rendered(path, numbers[0], form, view), media_type=form)

    async def store(self, request: Request) -> Response:
        """Take instances in (PS3.18 10.5)."""
        user = await run_in_threadpool(self.admit, request, "store")
        settings = self._services.settings
        boundary = boundary_of(request, settings.most_bytes)
        record = AssociationRecord(
            uuid.uuid4().hex, CALLER, settings.ae_title, host_of(request), None
        )
        storing = Storing(
            self._services.archive,
            record,
            self._services.on_stored,
            self._services.on_quarantined,
            request.path_params.get("study", ""),
            settings.extra_storage_classes,
        )
        whole = False
        try:
            whole = await self._take_body(request, MultipartReader(boundary, storing.open_part))
        finally:
            ended = record.ended("released" if whole else "aborted")
            await run_in_threadpool(self._services.on_released, ended)
            LOGGER.info(
                "STOW-RS by %s: %d stored, %d known, %d refused, %d in quarantine%s",
                user.name,
                record.stored,
                record.same,
                record.refused,
                record.quarantined,
                "" if whole else "; the body was cut off",
            )
        if not whole:
            count(request, "cut_off")
            sentence = "the body was cut off before its closing boundary"
            await run_in_threadpool(self.note_bad_input, request, storing.status, sentence)
        headers = dict(RETRY_LATER) if storing.status == 503 else {}
        return JSONResponse(
            storing.response(self._services.settings.url),
            storing.status,
            headers=headers,
            media_type=DICOM_JSON,
        )

    async def _take_body(self, request: Request, reader: MultipartReader) -> bool:
        """Read the body; returns whether it came to its closing delimiter."""
        most, taken = self._services.settings.most_bytes, 0
        ended = is_gone = False
        try:
            async for piece in pieces_of(request, self._services.settings.read_timeout):
                taken += len(piece)
                if taken > most:
                    raise HttpError(413, too_long(most), CLOSE)
                await run_in_threadpool(reader.feed, piece)
        except ClientDisconnect:
            # What was whole is kept; the caller of this notes the rest.
            is_gone = True
        except MultipartError as error:
            raise HttpError(400, error.sentence, CLOSE, "malformed_body") from error
        finally:
            ended = await run_in_threadpool(reader.finish)
        if reader.parts <= 0 and not is_gone:
            sentence = "the body holds no part between the boundaries of its type"
            raise HttpError(400, sentence, cause="no_part")
        return ended

    def admit(self, request: Request, service: WebService) -> WebUser:
        """Return who asks; HttpError 401 or 403 for those who may not."""
        certificate = str(request.scope.get("state", {}).get("certificate", ""))
        authorization = request.headers.get("authorization", "")
        admitted = self._services.access().admit(service, authorization, certificate)
        if not isinstance(admitted, Denied):
            return admitted
        host = host_of(request)
        sentence = f"A DICOMweb request from {host} was denied: {admitted.sentence}."
        LOGGER.warning("%s", sentence)
        self._services.on_refused(
            Refusal(CALLER, "", host, REJECTED_PERMANENT, _SOURCE_WEB, admitted.status, sentence)
        )
        headers = {"WWW-Authenticate": CHALLENGE} if admitted.status == 401 else {}
        raise HttpError(admitted.status, admitted.sentence, headers)

    def note_bad_input(self, request: Request, status: int, sentence: str) -> None:
        """Write a line, and count it with those who were turned away."""
        route = request.scope.get("route")
        where = f"{request.method} {getattr(route, 'path', 'of no address')}"
        plain = "".join(c if c.isprintable() else "?" for c in sentence[:200])
        host = host_of(request)
        said = f"{where} from {host} answered {status}: {plain}"
        LOGGER.warning("%s", said)
        self._services.on_refused(
            Refusal(CALLER, "", host, REJECTED_PERMANENT, _SOURCE_WEB, status, said)
        )

    def _matches(self, request: Request) -> list[Match]:
        """Return the instances under an address; 404 without any."""
        matching = {
            keyword: asks
            for keyword, uid in uids_of(request).items()
            if (asks := matching_of("UI", [uid])) is not None
        }
        wanted = set(UNIQUE_KEYS.values())
        found = self._services.catalog.find(Query(Level.IMAGE, matching), wanted)
        matches = [match for match in found if match.path is not None and match.path.exists()]
        if not matches or len(matching) < len(request.path_params.keys() & PLACES.keys()):
            raise HttpError(404, "this node holds nothing under that address")
        return matches


def _chain(
    first: tuple[bytes, Iterator[bytes]], rest: Iterator[tuple[bytes, Iterator[bytes]]]
) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    yield first
    yield from rest


def _path(match: Match) -> Path:
    if match.path is None:
        raise HttpError(404, "this node holds no file of that object")
    return match.path
