"""The engine under a virtual clock: machines, workers, messages, and what comes out."""
