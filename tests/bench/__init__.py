"""Measures the numbers that Umbel promises: `python -m tests.bench`, or `make bench`.

Each arm is a module that says what it measures and what must hold; `tests.bench.__main__` lists them. All that
needs Ray runs in processes of its own, so that arms share neither memory nor workers, and one that hangs can be
ended.
"""
