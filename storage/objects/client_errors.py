"""What does an error that a storage client raised mean, and what is to be done about it?

Each client (s3fs, gcsfs, adlfs, …) has errors of its own, and what the server said often stands only in the cause. They
are told apart here by status, code and class name, so that no client needs to be installed or imported. It must not
know which operation failed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from enum import Enum
from typing import Any, NoReturn

from umbel.scheduler.errors import (
    NotFoundError,
    StoreConflictError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)

__all__ = ["CHOOSE_ANOTHER", "Fault", "fault_of", "raise_store_error"]

CHOOSE_ANOTHER = "choose another store with store=… or $UMBEL_STORE"


class Fault(Enum):
    """What an error means, as far as it matters to Umbel."""

    #: A create-only write was refused: the object exists.
    EXISTS = "exists"
    #: There is no such object.
    MISSING = "missing"
    BUCKET = "bucket"
    #: May pass by itself: overload, a server's own error, a connection cut.
    TRANSIENT = "transient"
    #: The same, and no answer at all.
    UNREACHABLE = "unreachable"
    #: An object has no byte at the offset asked for.
    RANGE = "range"
    FULL = "full"
    CREDENTIALS = "credentials"
    DENIED = "denied"
    CLOCK = "clock"
    OTHER = "other"


#: EFBIG is what a limit on file sizes answers: to the writer it is the same thing.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
#: What S3, and those that speak its protocol, call it.
_CODES = {
    "PreconditionFailed": Fault.EXISTS,
    "BlobAlreadyExists": Fault.EXISTS,
    "NoSuchKey": Fault.MISSING,
    "BlobNotFound": Fault.MISSING,
    "NoSuchBucket": Fault.BUCKET,
    "ContainerNotFound": Fault.BUCKET,
    "InvalidBucketName": Fault.BUCKET,
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId"),
        Fault.CREDENTIALS,
    ),
    **dict.fromkeys(("TokenRefreshRequired", "AuthenticationFailed", "NoAuthenticationInformation"), Fault.CREDENTIALS),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AuthorizationFailure"), Fault.DENIED),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestExpired"), Fault.CLOCK),
    # Another create-only write to the key was under way: which one won will be known in a moment.
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted"), Fault.TRANSIENT),
    **dict.fromkeys(("SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"), Fault.TRANSIENT),
    **dict.fromkeys(("InternalError", "ServiceUnavailable", "RequestTimeout", "BadDigest"), Fault.TRANSIENT),
    "XAmzContentSHA256Mismatch": Fault.TRANSIENT,
    **dict.fromkeys(("InvalidRange", "RequestedRangeNotSatisfiable"), Fault.RANGE),
}
_STATUSES = {
    401: Fault.CREDENTIALS,
    403: Fault.DENIED,
    404: Fault.MISSING,
    412: Fault.EXISTS,
    416: Fault.RANGE,
    **dict.fromkeys((408, 425, 429, 500, 502, 503, 504, 509), Fault.TRANSIENT),
}
#: By names of classes: botocore's, aiohttp's, urllib3's, requests', azure-core's, google-auth's, fsspec's.
_CLASSES = {
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"), Fault.CREDENTIALS),
    **dict.fromkeys(("ClientAuthenticationError", "DefaultCredentialsError", "RefreshError"), Fault.CREDENTIALS),
    **dict.fromkeys(("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError"), Fault.UNREACHABLE),
    "ServiceRequestError": Fault.UNREACHABLE,
    "ResourceExistsError": Fault.EXISTS,
    "ResourceNotFoundError": Fault.MISSING,
    **dict.fromkeys(("HTTPClientError", "ResponseStreamingError", "IncompleteReadError"), Fault.TRANSIENT),
    **dict.fromkeys(("ResponseParserError", "ClientPayloadError"), Fault.TRANSIENT),
    **dict.fromkeys(
        ("ClientConnectionError", "IncompleteRead", "ProtocolError", "ServiceResponseError"), Fault.TRANSIENT
    ),
    **dict.fromkeys(("FSTimeoutError", "TransportError", "ChunkedEncodingError", "ChecksumError"), Fault.TRANSIENT),
}
_ERRNOS = {
    **dict.fromkeys(_FULL, Fault.FULL),
    **dict.fromkeys((errno.EBUSY, errno.EREMOTEIO, errno.EAGAIN), Fault.TRANSIENT),
    **dict.fromkeys((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED), Fault.UNREACHABLE),
}
_HINTS = {
    Fault.BUCKET: "make its bucket first, or mend the URL",
    Fault.CREDENTIALS: "set the environment or profile that this storage takes its credentials from "
    "(S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), or give storage_options=…",
    Fault.DENIED: f"get access to read, write, list and delete there, or {CHOOSE_ANOTHER}",
    Fault.CLOCK: "set this machine's clock (timedatectl set-ntp true): storage refuses requests from another time",
    Fault.TRANSIENT: "run the same command again when the storage answers: all that was stored before is unharmed",
    Fault.UNREACHABLE: "check the network and the endpoint (S3: AWS_ENDPOINT_URL or storage_options=…), then run "
    "the same command again: all that was stored before is unharmed",
}


def fault_of(error: BaseException) -> Fault:
    """What an error of a storage client means; what a server said comes before what the client made of it."""
    chain = list(_chain(error))
    for each in chain:
        found = _answered(each)
        if found is not None:
            return found
    for each in chain:
        found = _raised(each)
        if found is not None:
            return found
    return Fault.OTHER


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, its cause, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _answered(error: BaseException) -> Fault | None:
    """By what the server answered: its code, or its status."""
    response: Any = getattr(error, "response", None)
    code: Any = getattr(error, "error_code", None)
    status: Any = getattr(error, "status_code", None) or getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(response, dict):
        code = (response.get("Error") or {}).get("Code", code)
        status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode", status)
    found = _CODES.get(str(code)) or next((fault for text, fault in _CODES.items() if f"({text})" in str(error)), None)
    if found is None and str(status).isdecimal():
        found = _STATUSES.get(int(status))
    return found


def _raised(error: BaseException) -> Fault | None:
    """By its class."""
    for cls in type(error).__mro__:
        if cls.__name__ in _CLASSES:
            return _CLASSES[cls.__name__]
    if isinstance(error, FileExistsError):
        return Fault.EXISTS
    if isinstance(error, FileNotFoundError):
        return Fault.BUCKET if "bucket" in str(error).lower() else Fault.MISSING
    if isinstance(error, (ConnectionRefusedError,)):
        return Fault.UNREACHABLE
    if isinstance(error, (ConnectionError, TimeoutError)):
        return Fault.TRANSIENT
    if isinstance(error, PermissionError):
        return Fault.DENIED
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0)
    return None


def raise_store_error(error: BaseException, doing: str, url: str, fault: Fault | None = None) -> NoReturn:
    """Turn what a file system raised into the store's own error.

    Args:
        error: what was raised.
        doing: "create runs/gdp/run.json": it completes "can't".
        url: the store's URL.
        fault: what it means; None: to be found out.
    """
    fault = fault or fault_of(error)
    reason = _reason(error)
    what = f"can't {doing} in the store {url}: {reason}"
    if fault is Fault.MISSING:
        raise NotFoundError(what) from error
    if fault is Fault.EXISTS:
        raise StoreConflictError(f"can't {doing} in the store {url}: it exists already") from error
    if fault is Fault.FULL:
        raise StoreFullError(
            f"no space is left in the store {url}",
            got=f"can't {doing}: {reason}",
            hint="free some space and run the same command again: all that was stored before is unharmed",
        ) from error
    hint = _HINTS.get(fault)
    if fault in (Fault.TRANSIENT, Fault.UNREACHABLE):
        raise StoreUnavailableError(what, hint=hint) from error
    if fault is Fault.BUCKET:
        raise StoreError(f"the store {url} does not exist", got=f"can't {doing}: {reason}", hint=hint) from error
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"get write access, or {CHOOSE_ANOTHER}"
    elif isinstance(error, NotADirectoryError):
        hint = f"a file stands where a folder is needed; {CHOOSE_ANOTHER}"
    raise StoreError(what, hint=hint) from error


def _reason(error: BaseException) -> str:
    """What is wrong, in the words of whoever said it first."""
    if isinstance(error, OSError) and error.errno and error.strerror == os.strerror(error.errno):
        return error.strerror
    cause = error.__cause__
    response = getattr(cause, "response", None)
    code = (response.get("Error") or {}).get("Code") if isinstance(response, dict) else None
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    name = str(code) if code else type(error).__name__
    return f"{name}: {text}" if text else name
