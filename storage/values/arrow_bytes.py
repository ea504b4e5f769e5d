"""How is Arrow given bytes to read from, so that the process can end at any time after?

Arrow's threads may drop the last reference to what they read a moment after the reading is over. If that is a Python
object, dropping it needs the interpreter's lock; where the interpreter is about to end, it ends that thread instead,
and C++ takes the whole process down ("terminate called without an active exception", apache/arrow#34314). So the bytes
are copied into memory of Arrow's own.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["arrow_reader"]


def arrow_reader(data: bytes) -> pa.BufferReader:
    """A file of these bytes, in memory that Arrow owns. Cost: one copy."""
    sink = pa.BufferOutputStream()
    sink.write(data)
    return pa.BufferReader(sink.getvalue())
