"""DICOMweb client: STOW-RS, QIDO-RS and WADO-RS at another archive (PS3.18 10.4 to 10.6).

What it raises and returns is what the DIMSE side does, so that delivery need not know by which way
an object went.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from dicom_node.errors import FinalError, RetriableError
from dicom_node.part10 import FileMeta, read_file_meta
from dicom_node.services.dicomweb.multipart import MultipartReader, MultipartWriter, media_type
from dicom_node.services.dicomweb.negotiation import DICOM, DICOM_JSON
from dicom_node.services.storage_scu import StoreStatus, judge_status
from dicom_node.services.web_connection import PIECE, WebConnection, WebDestination

_REFERENCED, _FAILED = "00081199", "00081198"
_SERIES_DESCRIPTION = "0008103E"
_INSTANCE, _REASON, _WARNING = "00081155", "00081197", "00081196"
# As many as one C-MOVE can count, which no series has; a server whose pages never end is left.
_MOST_MATCHES: Final = 65535
_MOST_PAGES: Final = 2000
# An object is gathered in memory, and stands there twice when it is handed over.
_LARGEST_OBJECT: Final = 2 << 30


class WebArchive(WebConnection):
    """An archive that is asked by DICOMweb. Use as a context manager."""

    def store(self, files: Sequence[Path]) -> list[StoreStatus]:
        """Send files in one STOW-RS request, as the bytes that they are.

        Returns
        -------
        list of StoreStatus
            One for each file, in their order; a 202 or 409 is read instance by instance.

        Raises
        ------
        RetriableError
            No answer, or not now; it may say when (Retry-After, RFC 9110 10.2.3).
        RejectedError
            It does not know our credentials, or gives us no right to store.
        FinalError
            The archive refuses the request as a whole.
        """
        metas = [_meta(path) for path in files]
        writer = MultipartWriter(DICOM)
        # Without the transfer syntax, which the file itself tells: Orthanc passes over a part whose
        # type has a parameter, and answers 200.
        heads = [writer.head() for _ in files]
        sizes = [path.stat().st_size for path in files]
        length = sum(map(len, heads)) + sum(sizes) + 2 * len(files) + len(writer.tail())
        parts = zip(heads, map(_bytes_of, files), strict=True)
        answer = self.ask(
            "POST",
            "/studies",
            accepts={200, 202, 409},
            content=writer.body(parts),
            headers={
                "Content-Type": writer.content_type,
                "Content-Length": str(length),
                "Accept": DICOM_JSON,
            },
        )
        return self._outcomes(answer, list(zip(files, metas, strict=True)))

    def holds(
        self, study: str, sop_instance_uids_by_series: Mapping[str, Collection[str]]
    ) -> set[str]:
        """Return those of the instances that the archive says it has, by QIDO-RS.

        Raises
        ------
        RetriableError, FinalError
            It does not answer the question.
        """
        proven: set[str] = set()
        for series, wanted in sop_instance_uids_by_series.items():
            found = self.search(f"/studies/{study}/series/{series}/instances", {})
            there = {str(_first(one, "00080018")) for one in found}
            proven |= there & set(wanted)
        return proven

    def series(self, study: str) -> dict[str, dict[str, str]]:
        """Return Modality and Series Description of a study's series, by QIDO-RS.

        Raises
        ------
        RetriableError, FinalError
            It does not answer the question.
        """
        found = self.search(f"/studies/{study}/series", {"includefield": _SERIES_DESCRIPTION})
        return {
            str(_first(one, "0020000E")): {
                "Modality": str(_first(one, "00080060") or ""),
                "SeriesDescription": str(_first(one, _SERIES_DESCRIPTION) or ""),
            }
            for one in found
        }

    def search(self, path: str, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Search by QIDO-RS; returns DICOM JSON. A server may answer in pages: all are fetched.

        Raises
        ------
        RetriableError, FinalError
            It does not answer the question, or with more than can be kept.
        """
        found: list[dict[str, Any]] = []
        known: set[tuple[Any, Any, Any]] = set()
        for _ in range(_MOST_PAGES):
            parameters = {**filters, **({"offset": str(len(found))} if found else {})}
            answer = self.ask(
                "GET",
                path,
                accepts={200, 204, 404},
                params=parameters,
                headers={"Accept": DICOM_JSON},
            )
            page = self.json_of(answer) if answer.status_code == 200 else []
            if not isinstance(page, list):
                raise FinalError(f"{self.destination} answers a search with something else")
            new = [one for one in page if _key(one) not in known]
            known.update(map(_key, new))
            found += new
            if len(found) > _MOST_MATCHES:
                raise FinalError(
                    f"{self.destination} answers a search with more than {_MOST_MATCHES} matches; "
                    "is that address the right one?"
                )
            # Without a limit of ours a page is all there is, unless the server says otherwise.
            if not new or "warning" not in answer.headers:
                return found
        raise FinalError(
            f"{self.destination} answers a search in more than {_MOST_PAGES} pages; raise there "
            "how many matches it gives at once"
        )

    def allowed_methods(self, path: str) -> frozenset[str] | None:
        """Return the methods that a resource allows (OPTIONS, RFC 9110 9.3.7); None: not told.

        Raises
        ------
        RetriableError, FinalError
            It does not answer, or not to us.
        """
        answer = self.ask("OPTIONS", path, accepts={200, 204, 400, 404, 405, 406, 415, 501})
        if "allow" not in answer.headers:
            return None
        methods = answer.headers["allow"].split(",")
        return frozenset(one.strip().upper() for one in methods if one.strip())

    def retrieve(self, path: str, take: Callable[[bytes], None]) -> int:
        """Fetch whole objects by WADO-RS, as they are stored; hands over each, returns how many.

        Raises
        ------
        RetriableError, FinalError
            It does not give them, or one is too large.
        """
        accept = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
        sinks: list[_Gathering] = []

        def open_part(_: Mapping[str, str]) -> _Gathering:
            sinks.append(_Gathering(take, self.destination))
            return sinks[-1]

        with self.sending("GET", path, headers={"Accept": accept}) as answer:
            if answer.status_code != 200:
                answer.read()
                self.require(answer, {200})
            said = media_type(answer.headers.get("content-type", ""))
            reader = MultipartReader(said.parameters.get("boundary", ""), open_part)
            for piece in answer.iter_bytes(PIECE):
                reader.feed(piece)
            if not reader.finish():
                raise RetriableError(f"{self.destination} broke off in the middle of its answer")
        return len(sinks)

    def _outcomes(
        self, answer: httpx.Response, files: Sequence[tuple[Path, FileMeta]]
    ) -> list[StoreStatus]:
        """Read a Store Instances Response Module (PS3.18 I.2), instance by instance."""
        said = self.json_of(answer) if answer.content else {}
        if not isinstance(said, dict):
            said = {}
        stored = {_first(item, _INSTANCE): item for item in _items(said, _REFERENCED)}
        failed = {_first(item, _INSTANCE): item for item in _items(said, _FAILED)}
        statuses = []
        for path, meta in files:
            uid = meta.sop_instance_uid
            code: int | None = None
            if uid in failed:
                code = _number(_first(failed[uid], _REASON), 0x0110)
            elif uid in stored:
                code = _number(_first(stored[uid], _WARNING), 0)
            else:
                # Also after a 200: what an archive does not name it may have passed over.
                code = 0x0110
            verdict, meaning = judge_status(code)
            statuses.append(
                StoreStatus(
                    path,
                    uid,
                    meta.sop_class_uid,
                    code,
                    verdict,
                    f"{self.destination} answered {answer.status_code}, {code:04X}: {meaning}",
                )
            )
        return statuses


class _Gathering:
    """Gathers one object and hands it over."""

    def __init__(self, take: Callable[[bytes], None], source: WebDestination) -> None:
        self._take = take
        self._source = source
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        if len(self._data) + len(data) > _LARGEST_OBJECT:
            self._data.clear()
            raise FinalError(
                f"{self._source} gives an object of more than {_LARGEST_OBJECT} bytes, which is "
                "not fetched; have it sent to the node by C-STORE or STOW-RS"
            )
        self._data += data

    def close(self) -> None:
        self._take(bytes(self._data))

    def abandon(self) -> None:
        self._data.clear()


def _meta(path: Path) -> FileMeta:
    try:
        with path.open("rb") as file:
            return read_file_meta(file, path.name)
    except OSError as error:
        raise FinalError(f"{path.name}: cannot be read ({error.strerror})") from error


def _bytes_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _items(dataset: Mapping[str, Any], tag: str) -> Iterable[Mapping[str, Any]]:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values or () if isinstance(item, dict)]


def _first(dataset: Mapping[str, Any], tag: str) -> Any:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _key(dataset: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    uids = ("0020000D", "0020000E", "00080018")
    first, second, third = (_first(dataset, tag) for tag in uids)
    return first, second, third


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= 0xFFFF else otherwise
