"""The one tree of errors that Umbel raises, grouped by what the caller would do about them.

Each error says what was given, what was expected and what to do next, in fields as well as in its text, and
survives pickling, because errors cross processes. It lives in the lowest layer so that every layer can raise it.
"""

from __future__ import annotations

__all__ = [
    "AccessRefusedError",
    "ClusterUnavailableError",
    "CodeError",
    "ElementFailedError",
    "ExecutorError",
    "GraphError",
    "InternalError",
    "NotFoundError",
    "PromotionRefusedError",
    "ResumeMismatchError",
    "RunHeldError",
    "RunInterrupted",
    "RunStoppedError",
    "SpaceError",
    "StoreConflictError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "TrialUsageError",
    "UmbelError",
    "UntrustedError",
    "UsageError",
]


class UmbelError(Exception):
    """Base of all errors that Umbel raises.

    Args:
        what: what went wrong, in one sentence without a final full stop.
        got: what was given.
        expected: what was expected instead.
        hint: what to do next.
    """

    def __init__(self, what: str, *, got: object = None, expected: str | None = None, hint: str | None = None):
        self.what = what
        self.got = None if got is None else (got if isinstance(got, str) else repr(got))
        self.expected = expected
        self.hint = hint
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [self.what]
        if self.got is not None:
            lines.append(f"  got:      {self.got}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.hint is not None:
            lines.append(f"  to do:    {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.got, self.expected, self.hint))


def _rebuild(cls: type[UmbelError], what: str, got: str | None, expected: str | None, hint: str | None) -> UmbelError:
    return cls(what, got=got, expected=expected, hint=hint)


# ---- the caller gave something wrong: mend the script ------------------------------------------------------


class UsageError(UmbelError):
    """An argument is wrong; nothing has been started."""


class TrialUsageError(UsageError):
    """What one of many trials was given is wrong; the others may be right."""


class SpaceError(UsageError):
    """A search space, or a search over it, is wrong."""


class GraphError(UsageError):
    """The graph can't be built: wrong arity, unequal lengths, duplicate names."""


class CodeError(UsageError):
    """A function, or something it captures, can't be sent to workers."""


class NotFoundError(UsageError):
    """A run, node, trial or artifact that was asked for does not exist."""


class AccessRefusedError(UsageError):
    """A cluster refuses the token that this process has, or wants one and there is none."""


class UntrustedError(UsageError):
    """Loading a model would run code that a store holds, and nobody has said that its writers are trusted."""


class ResumeMismatchError(UsageError):
    """A run of this name exists and was made by another graph, space or code."""


# ---- the store can't do what is asked: mend the store, then run again --------------------------------------


class StoreError(UmbelError):
    """The store can't be read or written."""


class StoreFullError(StoreError):
    """No space is left; what is durable stays unharmed and the run can be resumed."""


class StoreUnavailableError(StoreError):
    """The store does not answer, or not as it should, and went on so while requests were repeated; it may pass."""


class StoreConflictError(StoreError):
    """An object that must be created exists already: another process wrote it first."""


class StoreCorruptError(StoreError):
    """An object in the store can't be read as what it should be."""


class RunHeldError(StoreError):
    """Another live process is writing this run."""


# ---- the run itself ended short ----------------------------------------------------------------------------


class ExecutorError(UmbelError):
    """The executor (Ray, or this process) can't run the graph."""


class ClusterUnavailableError(ExecutorError):
    """A cluster does not answer; it may pass, and nothing is lost by trying again."""


class RunStoppedError(UmbelError):
    """The run was stopped because of failures, as it was told to be. What finished is durable; it can be resumed."""


class ElementFailedError(UmbelError):
    """A value was asked for whose element failed."""


class PromotionRefusedError(UmbelError):
    """A version of a registered model did not pass its gates; ``got`` is the table of what failed, as text."""

    #: The same as plain data: gate, group, candidate, current, note. Does not travel between processes.
    failed: tuple[dict[str, object], ...] = ()


class RunInterrupted(UmbelError, SystemExit):
    """The run was interrupted (Ctrl-C). What finished is durable; running the same command again resumes it.

    It is a ``SystemExit`` too, so that a script which does not catch it ends with status 130 and no traceback.
    """

    def __init__(self, what: str, *, got: object = None, expected: str | None = None, hint: str | None = None):
        super().__init__(what, got=got, expected=expected, hint=hint)
        self.code = 130


class InternalError(UmbelError):
    """An invariant of Umbel is broken: a defect in Umbel, to be reported with this text."""
