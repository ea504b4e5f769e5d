"""What Kubernetes and Slurm need to run a project, as text."""
