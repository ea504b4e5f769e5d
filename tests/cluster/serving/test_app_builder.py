"""What Serve's own configuration makes of a registered model: the builder alone, and deployed by Serve."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.job_cluster import free_ports
from tests.cluster.served import promote, register
from umbel.cluster.config.file import from_table
from umbel.cluster.manifests.kinds import documents
from umbel.cluster.manifests.yaml_text import plain
from umbel.cluster.serving.app_builder import BUILDER, build, read_arguments
from umbel.cluster.serving.grpc_calls import GrpcCallers
from umbel.scheduler.errors import NotFoundError, UmbelError, UntrustedError, UsageError
from umbel.storage.store import Store, open_store

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("served") / "store"))
    register(store, 1.0)
    promote(store, 1)
    return store


def test_arguments_are_texts_or_what_they_mean() -> None:
    meant: dict[str, Any] = {
        "model": "gdp",
        "token_env": "TOKEN",
        "trust": True,
        "replicas": 2,
        "log": 0.5,
        "cpus": 1.0,
        "split": "champion=100",
    }
    assert read_arguments({name: str(value) for name, value in meant.items()}) == meant
    assert read_arguments(meant) == meant
    given = {"model": "gdp", "no_token": "true", "split": ["a=100", "AUT:b=100"]}
    assert read_arguments(given) == {"model": "gdp", "split": ["a=100", "AUT:b=100"]}


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        ({}, UsageError, "needs a name"),
        ({"model": "gdp", "replica": 1}, UsageError, "did you mean replicas"),
        ({"model": "gdp", "token": "x"}, UsageError, "did you mean no_token or token_env"),
        ({"model": "gdp", "trust": "yes"}, UsageError, "neither true nor false"),
        ({"model": "gdp", "poll_s": "often"}, UsageError, "no number"),
        ({"model": "gdp", "trust": "true", "token_env": "NOT_THERE"}, UsageError, "is not set"),
        ({"model": "gdp"}, UsageError, "anybody who reaches the cluster"),
        ({"model": "gdp", "no_token": "true", "token_env": "TOKEN"}, UsageError, "both"),
        ({"model": "gdpp", "trust": "true", "no_token": True}, NotFoundError, ""),
        ({"model": "gdp", "trust": "true", "no_token": True, "alias": "champ"}, NotFoundError, ""),
        ({"model": "gdp", "no_token": True}, UntrustedError, ""),
    ],
)
def test_what_can_not_be_served_is_not_built(
    store: Store, args: dict[str, Any], error: type[UmbelError], said: str
) -> None:
    with pytest.raises(error) as raised:
        build({"store": store.url, **args})
    assert said in str(raised.value)


def test_it_is_what_the_command_serves(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_STORE", store.url)
    monkeypatch.setenv("SERVE_TOKEN", TOKEN)
    built = build({"model": "gdp", "trust": "true", "replicas": "2", "cpus": "0.5", "token_env": "SERVE_TOKEN"})
    bound = built._bound_deployment
    assert (bound.name, bound.num_replicas, bound.ray_actor_options["num_cpus"]) == ("model", 2, 0.5)
    _, settings, callers = bound.init_args
    assert callers is GrpcCallers.NOBODY
    with_grpc = build({"model": "gdp", "trust": "true", "no_token": "true", "grpc": "true"})
    assert with_grpc._bound_deployment.init_args[2] is GrpcCallers.ALL
    assert (settings.model, settings.alias, settings.trust) == ("gdp", "champion", True)
    assert settings.token.accepts(f"Bearer {TOKEN}".encode())
    assert TOKEN not in repr(settings)


@pytest.fixture
def ray_here() -> Iterator[None]:
    import ray
    from ray import serve

    ray.shutdown()  # another module's
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="error", configure_logging=False)
    try:
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.ray
def test_serve_deploys_what_a_manifest_says(store: Store, ray_here: None) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    config = from_table(
        {
            "name": "gdp",
            "groups": {"cpu": {"max": 1, "cpus": 2, "memory": "4Gi"}},
            "service": {
                "route_prefix": "/gdp",
                "args": {"model": "gdp", "trust": "true", "cpus": "0.5", "token_env": "SERVE_TOKEN"},
            },
        }
    )
    deployed = yaml.safe_load(plain(documents(config, "service"))[0]["spec"]["serveConfigV2"])
    (application,) = deployed["applications"]
    assert application["import_path"] == BUILDER
    # what pods have in their environment
    application["runtime_env"] = {"env_vars": {"UMBEL_STORE": store.url, "SERVE_TOKEN": TOKEN}}
    (port,) = free_ports(1)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate(deployed), _blocking=True)
    url = f"http://127.0.0.1:{port}/gdp/v1/models/gdp/groups/FRA:predict"
    request = urllib.request.Request(url, json.dumps({"inputs": [1.0, 2.0]}).encode())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 401
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["outputs"] == [2.0, 4.0]
