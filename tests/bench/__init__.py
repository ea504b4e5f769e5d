"""Measures the numbers that Umbel promises: `python -m tests.bench`, or `make bench`.

Each arm (`noop`, `million`, `cpu10ms`, `resume`, `startup`) is a module that says what it measures and what
must hold. All that needs Ray runs in processes of its own, so that arms share neither memory nor workers, and
one that hangs can be ended.
"""
