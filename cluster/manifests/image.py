"""A Dockerfile that puts Umbel and a project on top of Ray's official image."""

from __future__ import annotations

from umbel.cluster.config.cluster_config import ClusterConfig

__all__ = ["EXTRAS", "dockerfile"]

#: The extra of Umbel's that a store's URL needs, by its scheme.
EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure", "adl": "azure"}


def dockerfile(config: ClusterConfig) -> str:
    """The text, for ``docker build`` in the project's folder."""
    extra = EXTRAS.get((config.store or "").partition("://")[0])
    version = config.effective_ray_version
    base = f"rayproject/ray:{version}-py311"
    if any(group.gpus for group in config.groups):
        base += "-gpu"  # Ray's own image with CUDA; it runs without GPUs, too
    wanted = f"[{extra}]" if extra else ""
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

# The project's own requirements; a project without any has an empty file.
COPY --chown=1000:100 requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt "ray=={version}"

# The code last. What must not be in the image belongs into .dockerignore: stores, data, .git, and above all secrets.
COPY --chown=1000:100 . .
ENV PYTHONPATH=/home/ray/project
"""
