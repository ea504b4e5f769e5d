"""How users say what there is to do: tasks, sweeps and data as nodes of a graph."""
