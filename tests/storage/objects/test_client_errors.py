"""Errors as the clients raise them; each made as its client's source makes it, since not all of them are installed."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from fsspec.exceptions import FSTimeoutError

from umbel.scheduler.errors import (
    NotFoundError,
    StoreConflictError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from umbel.storage.objects.client_errors import Fault, fault_of, raise_store_error


def named(name: str, base: type[Exception] = Exception, text: str = "", **fields: Any) -> Exception:
    """An error of a class of this name, as of a client that need not be installed."""
    error: Exception = type(name, (base,), {})(text)
    for field, value in fields.items():
        setattr(error, field, value)
    return error


def s3(code: str, status: int, made: Exception | None = None) -> Exception:
    """As s3fs raises what S3 answered: an OSError whose cause is botocore's."""
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = made or OSError(errno.EIO, "no")
    error.__cause__ = named("ClientError", text=f"An error occurred ({code}) when calling X", response=response)
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        # s3fs and botocore
        (s3("PreconditionFailed", 412, OSError(errno.EINVAL, "no")), Fault.EXISTS),
        (s3("PreconditionFailed", 412, FileExistsError("no")), Fault.EXISTS),
        (s3("ConditionalRequestConflict", 409), Fault.TRANSIENT),
        (s3("SlowDown", 503, OSError(errno.EBUSY, "no")), Fault.TRANSIENT),
        (s3("InternalError", 500), Fault.TRANSIENT),
        (s3("500", 500), Fault.TRANSIENT),
        (s3("RequestTimeout", 400, TimeoutError("no")), Fault.TRANSIENT),
        (s3("NoSuchBucket", 404, FileNotFoundError("no")), Fault.BUCKET),
        (s3("NoSuchKey", 404, FileNotFoundError("no")), Fault.MISSING),
        (s3("404", 404, FileNotFoundError("no")), Fault.MISSING),
        (s3("InvalidAccessKeyId", 403, PermissionError("no")), Fault.CREDENTIALS),
        (s3("SignatureDoesNotMatch", 403, PermissionError("no")), Fault.CREDENTIALS),
        (s3("AccessDenied", 403, PermissionError("no")), Fault.DENIED),
        (s3("403", 403, PermissionError("no")), Fault.DENIED),
        (s3("RequestTimeTooSkewed", 403, PermissionError("no")), Fault.CLOCK),
        (s3("InvalidRange", 416), Fault.RANGE),
        (named("NoCredentialsError"), Fault.CREDENTIALS),
        (named("EndpointConnectionError", named("HTTPClientError").__class__), Fault.UNREACHABLE),
        (named("ReadTimeoutError", named("HTTPClientError").__class__), Fault.TRANSIENT),
        (named("ClientPayloadError"), Fault.TRANSIENT),
        # gcsfs: HttpError(code, message), FileExistsError for 412, OSError for 403
        (FileExistsError("bucket/x"), Fault.EXISTS),
        (named("HttpError", code=503), Fault.TRANSIENT),
        (named("HttpError", code="429"), Fault.TRANSIENT),
        (named("HttpError", code=401), Fault.CREDENTIALS),
        (named("DefaultCredentialsError"), Fault.CREDENTIALS),
        (named("RefreshError"), Fault.CREDENTIALS),
        # adlfs and azure-core
        (caused(FileExistsError("x"), named("ResourceExistsError", status_code=409)), Fault.EXISTS),
        (named("HttpResponseError", status_code=503, error_code="ServerBusy"), Fault.TRANSIENT),
        (named("ResourceNotFoundError", status_code=404, error_code="ContainerNotFound"), Fault.BUCKET),
        (named("ClientAuthenticationError", status_code=401), Fault.CREDENTIALS),
        (named("ServiceRequestError"), Fault.UNREACHABLE),
        # all of them
        (FSTimeoutError(), Fault.TRANSIENT),
        (TimeoutError(), Fault.TRANSIENT),
        (ConnectionResetError(), Fault.TRANSIENT),
        (ConnectionRefusedError(), Fault.UNREACHABLE),
        (FileNotFoundError("x"), Fault.MISSING),
        (OSError(errno.ENOSPC, "full"), Fault.FULL),
        (OSError(errno.EIO, "broken"), Fault.OTHER),
        (RuntimeError("what"), Fault.OTHER),
    ],
    ids=lambda value: None if isinstance(value, Fault) else f"{type(value).__name__}-{value.__cause__ or value}"[:60],
)
def test_what_an_error_means(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (s3("PreconditionFailed", 412), StoreConflictError, "exists already"),
        (s3("NoSuchKey", 404), NotFoundError, "a/b"),
        (s3("SlowDown", 503), StoreUnavailableError, "SlowDown"),
        (s3("NoSuchBucket", 404), StoreError, "make its bucket"),
        (s3("RequestTimeTooSkewed", 403), StoreError, "clock"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), StoreFullError, "free some space"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), StoreError, "get write access"),
    ],
)
def test_what_becomes_of_it(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        raise_store_error(error, "create a/b", "s3://bucket/x")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "s3://bucket/x" in str(caught.value)
    assert caught.value.__cause__ is error


def test_causes_that_go_in_a_circle() -> None:
    first, second = RuntimeError("1"), RuntimeError("2")
    first.__cause__, second.__cause__ = second, first
    assert fault_of(first) is Fault.OTHER
