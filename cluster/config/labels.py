"""What are labels called that Umbel writes, or that a batch scheduler reads?

One table for those who write labels, read them back, and refuse them from users. It must not know manifests.
"""

from __future__ import annotations

__all__ = [
    "CODE_ANNOTATION",
    "COMMIT_LABEL",
    "DIRTY_LABEL",
    "MANAGED_LABEL",
    "QUEUE_LABELS",
    "RUN_LABEL",
    "is_reserved",
]

RUN_LABEL = "umbel/run"
COMMIT_LABEL = "umbel/commit"
DIRTY_LABEL = "umbel/uncommitted-changes"
CODE_ANNOTATION = "umbel/code"
MANAGED_LABEL = "app.kubernetes.io/managed-by"

#: The labels by which each batch scheduler knows queue and priority; a priority of three goes by Ray's own label.
QUEUE_LABELS = {
    "kueue": ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"),
    "volcano": ("volcano.sh/queue-name", "ray.io/priority-class-name"),
    "yunikorn": ("yunikorn.apache.org/queue", "ray.io/priority-class-name"),
    "kai": ("kai.scheduler/queue", "ray.io/priority-class-name"),
}
_PREFIXES = ("umbel", "ray.io", *(queue.partition("/")[0] for queue, _ in QUEUE_LABELS.values()))


def is_reserved(key: str) -> bool:
    """Whether a label is written by Umbel itself, or means something to Ray's operator or a batch scheduler."""
    prefix, slash, _ = key.partition("/")
    return key == MANAGED_LABEL or (bool(slash) and prefix in _PREFIXES)
