"""The Python API, the executors, the worker, progress and the command line."""
