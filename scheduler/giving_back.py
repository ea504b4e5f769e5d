"""Which workers go when there are more of a shape than there may be?

There may be fewer than before once other runs claim their share of a cluster (`umbel.scheduler.fair_share`). Only
chooses; the engine carries it out. It must not know why the capacity fell.
"""

from __future__ import annotations

import heapq

from umbel.scheduler.worker_state import ShapeState, WorkerState

__all__ = ["surplus"]


def surplus(shape: ShapeState, count: int) -> list[WorkerState]:
    """So many workers that are not leaving yet: idle ones, then those that are likely to be free first.

    Of elements that take about as long as each other, the one that has run longest ends first. Workers that are being
    stopped go anyway, and are not chosen. Costs a pass over the shape's workers.
    """
    if count <= 0:
        return []
    idle = [shape.workers[worker] for worker in reversed(shape.idle)][:count]
    busy = (worker for worker in shape.workers.values() if worker.leases and not (worker.leaving or worker.stopping))
    return idle + heapq.nsmallest(count - len(idle), busy, key=lambda worker: worker.leases[0].since)
