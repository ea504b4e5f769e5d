"""What the tests of served models share: logs of answers and outcomes, made up with known errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.log import PredictionLog, write_outcomes

START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def log_split(
    objects: ObjectStore,
    count: int,
    *,
    errors: Sequence[float] = (1.0, 1.0),
    share: float | None = 0.5,
    actual: float | None = None,
    groups: Sequence[str] = ("DEU",),
    keys: int | None = None,
    versions: Sequence[int] = (1, 2),
    seed: int = 0,
    start: float = START,
    prefix: str = "q",
    model: str = "gdp",
) -> None:
    """Answers of two arms chosen at random: the truth is normal, each arm errs by its standard deviation."""
    rng = np.random.default_rng(seed)
    chance = actual if actual is not None else (0.5 if share is None else share)
    of_key = rng.random(keys or 1) < chance
    ids, truths = [], rng.standard_normal(count)
    with PredictionLog(objects, model, "replica") as log:
        for i in range(count):
            key = int(rng.integers(keys)) if keys else None
            second = bool(of_key[key]) if key is not None else bool(rng.random() < chance)
            ids.append(f"{prefix}{i}")
            log.add(
                ids[-1],
                group=groups[i % len(groups)],
                version=versions[second],
                arm=("champion", "challenger")[second],
                output=json.dumps(truths[i] + errors[second] * rng.standard_normal()),
                inputs=json.dumps({"x": truths[i], "kind": "ab"[i % 2]}),
                key_hash=None if key is None else f"key{key}",
                share=None if share is None else (share if second else 1 - share),
                time=start + i,
            )
    write_outcomes(objects, model, ids, truths.tolist(), [start + i + 1000 for i in range(count)])


def log_shadow(
    objects: ObjectStore,
    count: int,
    errors: dict[str, tuple[float, float]],
    *,
    seed: int = 0,
    model: str = "gdp",
    spoil: Any = None,
) -> None:
    """Requests to groups in turn, answered by version 1 and, as a shadow, by 2; standard deviations by group."""
    rng = np.random.default_rng(seed)
    truths = rng.standard_normal(count)
    ids = [f"s{i}" for i in range(count)]
    with PredictionLog(objects, model, "replica") as log:
        for i, name in enumerate(ids):
            group = list(errors)[i % len(errors)]
            shared = rng.standard_normal()
            for second, error in enumerate(errors[group]):
                output = truths[i] + error * (shared + rng.standard_normal())
                log.add(
                    name,
                    group=group,
                    version=second + 1,
                    arm=("champion", "challenger")[second],
                    output=json.dumps(spoil if spoil is not None and second and i == 5 else output),
                    shadow=bool(second),
                    time=START + i,
                )
    write_outcomes(objects, model, ids, truths.tolist(), [START + i + 1000 for i in range(count)])
