"""How a worker runs a lease: the user's function, trial by trial, and what is reported of it."""
