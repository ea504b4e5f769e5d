"""The commands of `umbel` that concern clusters, jobs and servers."""
