"""How the driver carries a run out: plan, session, ledger, limits, progress."""
