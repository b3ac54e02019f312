"""TLS for associations and for the web: BCP 195 profiles as named settings (PS3.15 annex B).

Of the profiles of PS3.15 two are current, B.12 and B.13. B.1 to B.3 and B.9 to B.11 are retired;
of these only the Non-Downgrading one (B.10) is offered, as it alone needs nothing older than
TLS 1.2 and is what devices of some years ago do.

Certificates are checked in one of two ways. A *pinned* certificate is trusted because it lies
here: nothing but that very certificate is taken, whoever signed it. Without one, the chain must
lead to one of the authorities. Either way its dates count.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dicom_node.counters import HandshakeCause
from dicom_node.errors import FinalError

ProfileName = Literal["bcp195-rfc9325", "bcp195-rfc9325-modified", "bcp195-nd", "tls13"]

_AEAD_WITH_ECDHE: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)
# The suites that PS3.15 B.13 requires for TLS 1.2, but for those with CCM_8: OpenSSL counts their
# tag of 64 bits as too weak. Its level 2 asks for what B.13 asks of keys: RSA of 2048 bits, curves
# of 224 (those that it offers have 256 and more), and no SHA-1 in certificates.
_MODIFIED: Final = (
    f"{_AEAD_WITH_ECDHE}:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES256-CCM:ECDHE-ECDSA-AES128-CCM:@SECLEVEL=2"
)


# The 3072-bit group of RFC 7919, A.2: B.10 asks for 2048 bits and more.
_FFDHE_GROUP: Final = Path(__file__).with_name("ffdhe3072.pem")


class Profile(NamedTuple):
    """What a profile lets be negotiated.

    Attributes
    ----------
    standard
        Where it stands.
    minimum
        The lowest version of TLS.
    ciphers
        OpenSSL's names of the suites of TLS 1.2; those of TLS 1.3 are all allowed.
    """

    standard: str
    minimum: ssl.TLSVersion
    ciphers: str


PROFILES: Final[Mapping[ProfileName, Profile]] = MappingProxyType(
    {
        "bcp195-rfc9325": Profile(
            "PS3.15 B.12, BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile",
            ssl.TLSVersion.TLSv1_2,
            _AEAD_WITH_ECDHE,
        ),
        "bcp195-rfc9325-modified": Profile(
            "PS3.15 B.13, Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile",
            ssl.TLSVersion.TLSv1_2,
            _MODIFIED,
        ),
        "bcp195-nd": Profile(
            "PS3.15 B.10, Non-Downgrading BCP 195 TLS Profile (retired; for older devices)",
            ssl.TLSVersion.TLSv1_2,
            f"{_AEAD_WITH_ECDHE}:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256",
        ),
        "tls13": Profile("TLS 1.3 alone (RFC 8446)", ssl.TLSVersion.TLSv1_3, _AEAD_WITH_ECDHE),
    }
)


@dataclass(frozen=True, slots=True)
class Tls:
    """How one side of a connection proves who it is, and whom it believes.

    Attributes
    ----------
    certificate, key : Path or None
        Ours, PEM; a server needs them, a client where the other side asks.
    key_password : str or None
        Of an encrypted key.
    authorities : Path or None
        PEM file of certification authorities.
    pinned : tuple of Path
        PEM files of certificates that are trusted as they are.
    profile : str
        A name of ``PROFILES``.
    """

    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = None
    authorities: Path | None = None
    pinned: tuple[Path, ...] = ()
    profile: ProfileName = "bcp195-rfc9325"


def server_context(tls: Tls, *, mutual: bool = True) -> ssl.SSLContext:
    """Return the context of a server.

    Parameters
    ----------
    tls : Tls
        With certificate and key.
    mutual : bool
        Whether callers must show a certificate, too.

    Raises
    ------
    FinalError
        A file is missing, is no certificate, or does not fit the key; the sentence names it.
    """
    if tls.certificate is None:
        raise FinalError("TLS needs a certificate and a key: set tls.certificate and tls.key")
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    # Without a group of its own a server takes no suite with DHE, whatever its list says.
    context.load_dh_params(str(_FFDHE_GROUP))
    context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
    if mutual and tls.authorities is None and not tls.pinned:
        raise FinalError(
            "callers must show a certificate, but none can be believed: set tls.authorities, or "
            "certificate for each peer"
        )
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a client. A pinned certificate stands above the host's name.

    Raises
    ------
    FinalError
        As `server_context`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls)
    if tls.pinned:
        context.check_hostname = False
    elif tls.authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _context(protocol: int, tls: Tls) -> ssl.SSLContext:
    profile = PROFILES[tls.profile]
    context = ssl.SSLContext(protocol)
    context.minimum_version = profile.minimum
    context.set_ciphers(profile.ciphers)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    # A pinned certificate is an anchor although an authority signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.certificate is not None:
        password = tls.key_password or ""
        try:
            # The function keeps OpenSSL from asking at a terminal.
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: password)
        except (OSError, ssl.SSLError) as error:
            what = f"{tls.certificate} and the key {tls.key}"
            raise FinalError(
                f"the certificate {what} cannot be used ({_said(error)}): are both PEM files that "
                "the node may read, and is the key that of the certificate?"
            ) from error
    for path in (*tls.pinned, *([tls.authorities] if tls.authorities else [])):
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise FinalError(
                f"the certificate file {path} cannot be used ({_said(error)}); it must be PEM"
            ) from error
    return context


def _said(error: OSError) -> str:
    return str(error.strerror or error)


def certificates_in(path: Path) -> list[x509.Certificate]:
    """Read the certificates of a PEM file.

    Raises
    ------
    FinalError
        There are none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FinalError(f"{path} is no PEM file with a certificate ({error})") from error


def fingerprints(paths: Iterable[Path]) -> frozenset[str]:
    """Return the SHA-256 of each certificate in PEM files, hexadecimal.

    Raises
    ------
    FinalError
        A file has none.
    """
    return frozenset(
        certificate.fingerprint(hashes.SHA256()).hex()
        for path in paths
        for certificate in certificates_in(path)
    )


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> float:
    """Return for how many days a certificate is still valid; negative once it has expired."""
    left = certificate.not_valid_after_utc - (now or datetime.now(UTC))
    return left.total_seconds() / 86400


# X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL.
_OUT_OF_DATE: Final = frozenset({9, 10})


def handshake_cause(error: OSError) -> HandshakeCause:
    """Say in a word why a handshake failed, as seen by the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        expired = error.verify_code in _OUT_OF_DATE
        return "certificate_expired" if expired else "certificate_not_trusted"
    if isinstance(error, TimeoutError):
        return "timeout"
    reason = getattr(error, "reason", None) or ""
    if reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "HTTPS_PROXY_REQUEST"):
        return "no_tls"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate"
    if reason in ("NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"):
        return "version_or_cipher"
    if "ALERT" in reason or "UNKNOWN_CA" in reason:
        return "node_certificate_refused"
    return "other"


def handshake_failure(error: OSError) -> str:
    """Say in a sentence why a handshake failed, as seen by the server, and what to do."""
    reason = getattr(error, "reason", None) or ""
    match handshake_cause(error):
        case "certificate_expired" | "certificate_not_trusted":
            why = getattr(error, "verify_message", "")
            return (
                f"its certificate is not accepted ({why}); give it a valid one, or add its "
                "authority to tls.authorities"
            )
        case "timeout":
            return "it did not finish the TLS handshake in time"
        case "no_tls":
            return "it does not speak TLS; this port takes TLS only (tls.port in node.yaml)"
        case "no_certificate":
            return "it shows no certificate, but this node asks for one (tls.mutual in node.yaml)"
        case "version_or_cipher":
            return f"it offers no version or cipher suite of the node's TLS profile ({reason})"
        case "node_certificate_refused":
            return f"it does not accept this node's certificate ({reason})"
    return f"the TLS handshake failed ({reason or error})"
