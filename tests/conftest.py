"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadlines: a busy machine is no defect. In CI the examples are the same every time.
settings.register_profile("umbel", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("umbel")
