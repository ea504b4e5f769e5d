"""When are the studies of two sweeps the same as far as they go? If they have the same identity.

It stands for all that determines what an adaptive search suggests and what comes of it, beside the group, its data and
how many trials there are: code, seeds, space, sampler and its version, and what it is told. It must not read the store.
"""

from __future__ import annotations

import hashlib

from umbel.runtime.leases.values import value_digest
from umbel.runtime.provenance.credentials import hidden_values
from umbel.runtime.provenance.fingerprint import fingerprint
from umbel.runtime.search.searches import Factory
from umbel.scheduler.errors import CodeError
from umbel.scheduler.identity import canonical_json
from umbel.scheduler.search.adaptive import AdaptiveSearch, CopiedSampler, NamedSampler

__all__ = ["study_identity"]


def study_identity(code: str, search: AdaptiveSearch, metrics: tuple[str, ...]) -> str | None:
    """The identity of a sweep's studies, 64 hexadecimal digits; None: it has none, because its sampler has none.

    Args:
        code: the fingerprint of the sweep's function.
        search: its search, which knows the sweep's name and seed.
        metrics: what the search is told.
    """
    import optuna

    try:
        described = {
            "code": code,
            "sweep": search.source.sweep,
            "seed": search.source.seed,
            "space": hidden_values(search.source.space).space().describe(value_digest),
            "define": None if search.define is None else fingerprint(search.define).digest,
            "sampler": _sampler(search),
            "told": list(zip(metrics, search.directions, strict=True)),
            "optuna": optuna.__version__,
        }
    except CodeError:
        return None
    return hashlib.sha256(canonical_json(described, value_digest).encode()).hexdigest()


def _sampler(search: AdaptiveSearch) -> str:
    make = search.make_sampler
    if isinstance(make, NamedSampler):
        return make.name
    if isinstance(make, CopiedSampler):
        return value_digest(make.sampler)
    return fingerprint(make.make if isinstance(make, Factory) else make).digest
