"""A Dockerfile that puts Umbel and a project on top of Ray's official image."""

from __future__ import annotations

from umbel.cluster.config.cluster_config import ClusterConfig

__all__ = ["EXTRAS", "dockerfile"]

#: The extra of Umbel's that a store's URL needs, by its scheme.
EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure", "adl": "azure"}


def dockerfile(config: ClusterConfig, *, in_src: bool = False, requirements: str | None = "requirements.txt") -> str:
    """The text, for ``docker build`` in the project's folder.

    Args:
        config: the configuration.
        in_src: whether the project has packages in ``src/``, which are to be found as if they were installed.
        requirements: the file that names what the project requires: a requirements.txt, or a pyproject.toml; None:
            there is none.
    """
    extra = EXTRAS.get((config.store or "").partition("://")[0])
    version = config.effective_ray_version
    base = f"rayproject/ray:{version}-py311"
    if any(group.gpus for group in config.groups):
        base += "-gpu"  # Ray's own image with CUDA; it runs without GPUs, too
    wanted = f"[{extra}]" if extra else ""
    listed = _requirements(requirements, version)
    path = "/home/ray/project" + (":/home/ray/project/src" if in_src else "")
    return f"""\
# Written by `umbel manifest image`. In the project's folder, with Umbel's wheel in wheels/:
#   pip wheel --no-deps --wheel-dir wheels PATH_OF_UMBEL
#   docker build -f Dockerfile -t {"NAME:TAG" if config.image.startswith("rayproject/") else config.image} .

# The driver and all workers run this one image, with the Ray that Umbel is made for.
ARG BASE={base}
FROM ${{BASE}}

# What changes rarely comes first, so that a change of the project builds in seconds. Ray stays as it is in the image.
WORKDIR /home/ray/project
COPY --chown=1000:100 wheels/ /tmp/wheels/
RUN pip install --no-cache-dir "$(ls /tmp/wheels/umbel-*.whl){wanted}" "ray=={version}"

{listed}# The code last. What must not be in the image belongs into .dockerignore: stores, data, .git, all secrets.
COPY --chown=1000:100 . .
ENV PYTHONPATH={path}
"""


def _requirements(file: str | None, version: str | None) -> str:
    """The layer with what the project requires, before its code."""
    if file is None:
        return ""
    listed, read = file, ""
    if file == "pyproject.toml":
        listed = "/tmp/requirements.txt"
        named = "tomllib.load(open('pyproject.toml', 'rb')).get('project', {}).get('dependencies', [])"
        read = f"""RUN python -c "import tomllib; print(*{named}, sep=chr(10))" > {listed}\n"""
    return (
        f"# The project's own requirements, as {file} names them.\n"
        f"COPY --chown=1000:100 {file} ./\n{read}"
        f'RUN pip install --no-cache-dir -r {listed} "ray=={version}"\n\n'
    )
