"""Connections to DICOMweb services elsewhere: who they are, our credentials, deadlines, mishaps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self

import httpx

from dicom_node.errors import FinalError, RejectedError, RetriableError
from dicom_node.services.association import Timeouts
from dicom_node.services.tls import Tls, client_context

PIECE: Final = 1 << 20
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


class WebConnection:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, *, accepts: set[int], **more: Any) -> httpx.Response:
        """Send a request and read the whole answer; statuses but those in ``accepts`` are raised.

        Raises
        ------
        RetriableError
            No answer, or not now; it may say when (Retry-After, RFC 9110 10.2.3).
        RejectedError
            It does not know our credentials, or gives us no right to that.
        FinalError
            Any other status, or an answer that is too long.
        """
        with self.sending(method, path, **more) as answer:
            body = bytearray()
            for piece in answer.iter_bytes(PIECE):
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
        self.require(whole, accepts)
        return whole

    @contextmanager
    def sending(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
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

    def require(self, answer: httpx.Response, accepts: set[int]) -> None:
        """Raise what a status asks for, unless it is one of these; see `ask`."""
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

    def json_of(self, answer: httpx.Response) -> Any:
        """Return the JSON of an answer; FinalError where it is none."""
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
