"""Which bytes stand for a value, and where they lie."""
