"""DICOMweb client: STOW-RS, QIDO-RS and WADO-RS at another archive (PS3.18 10.4 to 10.6).

What it raises and returns is what the DIMSE side does, so that delivery need not know by which way
an object went.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import httpx

from dicom_node.errors import FinalError, RejectedError, RetriableError
from dicom_node.part10 import FileMeta, read_file_meta
from dicom_node.services.association import Timeouts
from dicom_node.services.dicomweb.multipart import MultipartReader, MultipartWriter, media_type
from dicom_node.services.storage_scu import StoreStatus, judge_status
from dicom_node.services.tls import Tls, client_context

_DICOM: Final = "application/dicom"
_JSON: Final = "application/dicom+json"
_PIECE: Final = 1 << 20
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _REASON, _WARNING = "00081155", "00081197", "00081196"
# A token is fetched anew so many seconds before it ends.
_TOKEN_MARGIN: Final = 30.0
_TOKEN_SECONDS: Final = 300.0
_LONGEST_ANSWER: Final = 64 << 20
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class OAuth2:
    """Client credentials grant (RFC 6749 4.4)."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""


@dataclass(frozen=True, slots=True)
class WebDestination:
    """A DICOMweb server that the node sends to and asks.

    Attributes
    ----------
    name : str
        What people call it.
    url : str
        What stands before ``/studies``.
    tls : Tls or None
        Whom to believe, and our certificate; None: the system's authorities.
    user, password, token : str
        Basic authentication, or a fixed bearer token; empty: none.
    oauth2 : OAuth2 or None
        Where to fetch tokens.
    """

    name: str
    url: str
    tls: Tls | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    oauth2: OAuth2 | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __str__(self) -> str:
        return f"{self.name} ({self.url})"


class WebArchive:
    """A connection to a DICOMweb server. Use as a context manager.

    Parameters
    ----------
    destination : WebDestination
        Which one.

    Raises
    ------
    FinalError
        A certificate's file cannot be used.
    """

    def __init__(self, destination: WebDestination) -> None:
        self.destination = destination
        timeouts = destination.timeouts
        self._client = httpx.Client(
            verify=client_context(destination.tls) if destination.tls else True,
            timeout=httpx.Timeout(
                timeouts.dimse, connect=timeouts.connection, write=timeouts.network
            ),
            # An archive that sends us elsewhere would get our credentials there, too.
            follow_redirects=False,
            trust_env=False,
        )
        self._token = destination.token
        self._token_until = float("inf") if destination.token else 0.0

    def __enter__(self) -> WebArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

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
        writer = MultipartWriter(_DICOM)
        # Without the transfer syntax, which the file itself tells: Orthanc passes over a part whose
        # type has a parameter, and answers 200.
        heads = [writer.head() for _ in files]
        sizes = [path.stat().st_size for path in files]
        length = sum(map(len, heads)) + sum(sizes) + 2 * len(files) + len(writer.tail())
        parts = zip(heads, map(_bytes_of, files), strict=True)
        answer = self._ask(
            "POST",
            "/studies",
            accepts={200, 202, 409},
            content=writer.body(parts),
            headers={
                "Content-Type": writer.content_type,
                "Content-Length": str(length),
                "Accept": _JSON,
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

    def search(self, path: str, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Search by QIDO-RS; returns DICOM JSON. A server may answer in pages: all are fetched.

        Raises
        ------
        RetriableError, FinalError
            It does not answer the question.
        """
        found: list[dict[str, Any]] = []
        while True:
            parameters = {**filters, **({"offset": str(len(found))} if found else {})}
            answer = self._ask(
                "GET", path, accepts={200, 204, 404}, params=parameters, headers={"Accept": _JSON}
            )
            page = self._json(answer) if answer.status_code == 200 else []
            if not isinstance(page, list):
                raise FinalError(f"{self.destination} answers a search with something else")
            known = {_key(one) for one in found}
            new = [one for one in page if _key(one) not in known]
            found += new
            # Without a limit of ours a page is all there is, unless the server says otherwise.
            if not new or "warning" not in answer.headers:
                return found

    def allowed_methods(self, path: str) -> frozenset[str] | None:
        """Return the methods that a resource allows (OPTIONS, RFC 9110 9.3.7); None: not told.

        Raises
        ------
        RetriableError, FinalError
            It does not answer, or not to us.
        """
        answer = self._ask("OPTIONS", path, accepts={200, 204, 400, 404, 405, 406, 415, 501})
        if "allow" not in answer.headers:
            return None
        methods = answer.headers["allow"].split(",")
        return frozenset(one.strip().upper() for one in methods if one.strip())

    def retrieve(self, path: str, take: Callable[[bytes], None]) -> int:
        """Fetch whole objects by WADO-RS, as they are stored; hands over each, returns how many.

        Raises
        ------
        RetriableError, FinalError
            It does not give them.
        """
        accept = f'multipart/related; type="{_DICOM}"; transfer-syntax=*'
        sinks: list[_Gathering] = []

        def open_part(_: Mapping[str, str]) -> _Gathering:
            sinks.append(_Gathering(take))
            return sinks[-1]

        with self._sending("GET", path, headers={"Accept": accept}) as answer:
            if answer.status_code != 200:
                answer.read()
                self._require(answer, {200})
            said = media_type(answer.headers.get("content-type", ""))
            reader = MultipartReader(said.parameters.get("boundary", ""), open_part)
            for piece in answer.iter_bytes(_PIECE):
                reader.feed(piece)
            if not reader.finish():
                raise RetriableError(f"{self.destination} broke off in the middle of its answer")
        return len(sinks)

    def _ask(self, method: str, path: str, *, accepts: set[int], **more: Any) -> httpx.Response:
        with self._sending(method, path, **more) as answer:
            body = bytearray()
            for piece in answer.iter_bytes(_PIECE):
                body += piece
                if len(body) > _LONGEST_ANSWER:
                    raise FinalError(f"{self.destination} answers with more than can be read")
            whole = httpx.Response(
                answer.status_code,
                headers=[
                    (name, value)
                    for name, value in answer.headers.items()
                    if name not in ("content-encoding", "content-length", "transfer-encoding")
                ],
                content=bytes(body),
            )
        self._require(whole, accepts)
        return whole

    @contextmanager
    def _sending(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        """Send a request with our credentials; failures of the connection are retriable."""
        destination = self.destination
        headers = {**more.pop("headers", {}), **self._credentials()}
        auth = (destination.user, destination.password) if destination.user else None
        try:
            with self._client.stream(
                method, destination.url.rstrip("/") + path, headers=headers, auth=auth, **more
            ) as answer:
                yield answer
        except httpx.HTTPError as error:
            raise RetriableError(
                f"{destination}: no answer ({type(error).__name__}: {error}). Is it running, is "
                "the address right, does it accept this node's certificate and this node its?"
            ) from error

    def _require(self, answer: httpx.Response, accepts: set[int]) -> None:
        code = answer.status_code
        if code in accepts:
            return
        said = _sentence_of(answer)
        where = f"{self.destination} answered {code} {answer.reason_phrase}{said}"
        if code in _BUSY:
            raise RetriableError(where, _retry_after(answer))
        if code in (401, 403):
            self._token_until = 0.0
            mend = "check the credentials of this destination in node.yaml, and its rights there"
            raise RejectedError(f"{where}; {mend}")
        raise FinalError(where)

    def _outcomes(
        self, answer: httpx.Response, files: Sequence[tuple[Path, FileMeta]]
    ) -> list[StoreStatus]:
        """Read a Store Instances Response Module (PS3.18 I.2), instance by instance."""
        said = self._json(answer) if answer.content else {}
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

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise FinalError(
                f"{self.destination} answered {answer.status_code} with something that is not "
                "JSON; is that address a DICOMweb service?"
            ) from error

    def _credentials(self) -> dict[str, str]:
        oauth2 = self.destination.oauth2
        if oauth2 is not None and time.monotonic() >= self._token_until:
            self._fetch_token(oauth2)
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _fetch_token(self, oauth2: OAuth2) -> None:
        form = {"grant_type": "client_credentials"}
        if oauth2.scope:
            form["scope"] = oauth2.scope
        try:
            answer = self._client.post(
                oauth2.token_url, data=form, auth=(oauth2.client_id, oauth2.client_secret)
            )
        except httpx.HTTPError as error:
            raise RetriableError(
                f"{self.destination}: {oauth2.token_url} gives no token ({type(error).__name__})"
            ) from error
        if answer.status_code in _BUSY:
            sentence = f"{oauth2.token_url} answered {answer.status_code}"
            raise RetriableError(f"{self.destination}: {sentence}", _retry_after(answer))
        try:
            given = answer.json()
            self._token = str(given["access_token"])
            seconds = float(given.get("expires_in", _TOKEN_SECONDS))
        except (ValueError, KeyError, TypeError) as error:
            raise FinalError(
                f"{self.destination}: {oauth2.token_url} answered {answer.status_code} without a "
                "token; check oauth2 of this destination"
            ) from error
        self._token_until = time.monotonic() + max(0.0, seconds - _TOKEN_MARGIN)


class _Gathering:
    """Gathers one object and hands it over."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._data = bytearray()

    def write(self, data: bytes) -> None:
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
        while piece := file.read(_PIECE):
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


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(min(int(text), 86400))
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, min(until.timestamp() - time.time(), 86400.0))


def _sentence_of(answer: httpx.Response) -> str:
    """Return what a server says of a mistake, shortened; it may be a whole web page."""
    text = "".join(c if c.isprintable() else " " for c in answer.text[:400]).strip()
    return f": {text[:160]}" if text and not text.startswith("<") else ""
