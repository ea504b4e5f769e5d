"""Wrong configurations, each of which gets one clear error before anything is written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.config.file import from_table, read_config
from umbel.cluster.config.work import Job, Slurm
from umbel.cluster.manifests.kinds import KINDS, of_kind
from umbel.scheduler.errors import UsageError

GROUP = {"max": 4, "cpus": 8, "memory": "32Gi"}
GOOD: dict[str, Any] = {
    "store": "s3://bucket/umbel",
    "groups": {"cpu": GROUP},
    "job": {"target": "job.py"},
    "cron": {"schedule": "0 3 * * *", "run": "n-%d"},
    "service": {"import_path": "app:serve"},
    "slurm": {"cpus": 4},
}


def group(**settings: Any) -> dict[str, Any]:
    return {"groups": {"cpu": GROUP | settings}}


WRONG: list[tuple[dict[str, Any], str]] = [
    # names, and what they are near to
    ({"imagee": "x"}, "unknown setting in [tool.umbel.cluster]"),
    ({"imagee": "x"}, "did you mean image"),
    (group(maximum=3), "unknown setting in [tool.umbel.cluster.groups.cpu]"),
    (group(name="x"), "unknown setting in [tool.umbel.cluster.groups.cpu]"),
    ({"job": {"traget": "job.py"}}, "did you mean target"),
    # types
    ({"groups": 3}, "holds no groups"),
    ({"head": 3}, "is not a table"),
    (group(max="4"), "tool.umbel.cluster.groups.cpu.max has the wrong type"),
    (group(max=True), "has the wrong type"),
    (group(max=4.5), "a whole number"),
    (group(spot="yes"), "true or false"),
    ({"env": 3}, "names and texts"),
    ({"env": {"N": [1]}}, "tool.umbel.cluster.env.N has the wrong type"),
    (group(memory=64), '"64Gi"'),
    (group(memory=64), "tool.umbel.cluster.groups.cpu.memory"),
    ({"slurm": {"cpus": 1, "memory": 64}}, '"64G"'),
    ({"groups": {"cpu": {"max": 4}}}, "lacks 'cpus', 'memory'"),
    ({"groups": {"cpu": {"max": 4}}}, "--set groups.cpu.cpus=… --set groups.cpu.memory=…"),
    ({"job": {"target": "job.py", "args": "--fresh"}}, "a list of texts"),
    ({"name": 3}, "a text"),
    # what is missing
    ({"groups": {"cpu": {"max": 4, "cpus": 8}}}, "lacks 'memory'"),
    ({"job": {}}, "lacks 'target'"),
    ({"cron": {"schedule": "0 3 * * *"}}, "lacks 'run'"),
    # groups
    (group(min=5), "min is larger than max"),
    (group(min=-1), "min is too small"),
    (group(max=0), "max is too small"),
    (group(max=2**31), "max is too large"),
    (group(cpus=0), "cpus is too small"),
    (group(memory="32"), "memory is no size"),
    (group(memory="0Gi"), "memory is no size"),
    (group(gpus=-1), "gpus is too small"),
    (group(accelerator="L4"), "names an accelerator, but has no GPUs"),
    (group(accelerator="", gpus=1), "accelerator is empty"),
    (group(accelerator="A 100", gpus=1), "can't be the value of a label"),
    (group(gpus=1, gpu_resource="nvidia.com/tpu"), "not the name of a GPU resource"),
    (group(gpu_resource="amd.com/gpu"), "of no use without gpus"),
    (group(idle_timeout_s=0), "idle_timeout_s is too small"),
    (group(node_selector={"a b": "c"}), "name of a label"),
    (group(node_selector={"a": "c d"}), "value of a label"),
    ({"groups": {"CPU": GROUP}}, "can't be the name of a group"),
    # the cluster
    ({"name": "Umbel"}, "can't be the name of a cluster"),
    ({"name": "1st"}, "a letter first"),
    ({"name": "n" * 54}, "at most 53"),
    ({"namespace": "a.b"}, "can't be the name of a namespace"),
    ({"service_account": "A"}, "can't be the name of a service account"),
    ({"service_account_annotations": {"a": "b"}}, "need the account's name"),
    ({"image": "rayproject/ray"}, "a tag that stays what it is"),
    ({"image": "rayproject/ray:latest"}, "a tag that stays what it is"),
    ({"image": "host:5000/ray"}, "a tag that stays what it is"),
    ({"image": "ray:2.60.0 --privileged"}, "this is no image"),
    ({"image": "team/umbel:v1"}, "which Ray is in the image"),
    ({"image": "team/gdp:1.4.2"}, "which Ray is in the image"),
    ({"ray_version": "2.60"}, "this is no version"),
    ({"idle_timeout_s": 0}, "idle_timeout_s is too small"),
    ({"labels": {"umbel/run": "x"}}, "written by Umbel"),
    ({"labels": {"kueue.x-k8s.io/queue-name": "x"}}, "written by Umbel"),
    ({"head": {"cpus": 0}}, "head: cpus is too small"),
    ({"head": {"memory": "1Mi"}}, "expected: 2048Mi or more"),
    (group(cpus=16, memory="64Mi"), "expected: 2048Mi or more"),
    (group(cpus=1_000_000), "cpus is too large"),
    ({"ray_version": "2.60.1"}, "another than the image's tag says"),
    ({"image": "rayproject/ray:2.59.0", "ray_version": "2.60.0"}, "another than the image's tag says"),
    # secrets
    ({"store": "s3://key:hidden@bucket/x"}, "holds a credential"),
    ({"store": "s3://bucket/a b"}, "a shell would read in its own way"),
    ({"env": {"AWS_SECRET_ACCESS_KEY": "hidden"}}, "would stand in the manifest in clear"),
    ({"env": {"URL": "https://ada:hidden@host"}}, "would stand in the manifest in clear"),
    ({"env": {"UMBEL_STORE": "s3://other"}}, "is set twice"),
    ({"env": {"RAY_AUTH_MODE": "disabled"}}, "is set by KubeRay"),
    ({"env": {"OPTIONS": "--password=hidden"}}, "would stand in the manifest in clear"),
    ({"job": {"target": "job.py", "args": ["--api-key=hidden"]}}, "job: args holds a credential"),
    ({"job": {"target": "job.py", "args": ["--api-key", "hidden"]}}, "job: args holds a credential"),
    ({"service": {"import_path": "app:serve", "args": {"api_key": "hidden"}}}, "api_key would stand in the manifest"),
    ({"service": {"import_path": "app:serve", "args": {"url": "s3://k:hidden@b"}}}, "service: args holds a credential"),
    ({"slurm": {"cpus": 1, "setup": ["export AWS_SECRET_ACCESS_KEY=hidden"]}}, "a line of setup holds a credential"),
    ({"slurm": {"cpus": 1, "setup": ['export TOKEN="hidden"; cd x']}}, "a line of setup holds a credential"),
    ({"credentials": {}}, "lacks 'secret'"),
    ({"credentials": {"secret": "Store"}}, "can't be the name of a Secret"),
    ({"credentials": {"secret": "store", "keys": ["a-b"]}}, "name of an environment variable"),
    ({"credentials": {"secret": "store", "keys": ["A", "A"]}}, "listed twice"),
    # fault tolerance
    ({"fault_tolerance": {"backend": "etcd"}}, "unknown fault_tolerance: backend"),
    ({"fault_tolerance": {"backend": "redis"}}, "Redis needs an address"),
    ({"fault_tolerance": {"backend": "redis", "redis_address": "redis"}}, "not Redis's address"),
    ({"fault_tolerance": {"backend": "redis", "redis_address": ":hidden@redis:6379"}}, "not Redis's address"),
    (
        {"fault_tolerance": {"backend": "redis", "redis_address": "r:1", "redis_secret": "s"}},
        "both the Secret and the key",
    ),
    ({"fault_tolerance": {"backend": "redis", "redis_address": "r:1", "size": "1Gi"}}, "are RocksDB's"),
    ({"fault_tolerance": {"backend": "rocksdb"}}, "the size of its volume"),
    ({"fault_tolerance": {"backend": "rocksdb", "size": "1Gi", "redis_address": "r:1"}}, "are Redis's"),
    # queues
    ({"queue": {"scheduler": "volcanoe", "name": "q"}}, "did you mean volcano"),
    ({"queue": {"scheduler": "slurm", "name": "q"}}, "unknown queue: scheduler"),
    ({"queue": {"scheduler": "kueue"}}, "lacks 'name'"),
    ({"queue": {"scheduler": "kueue", "name": ""}}, "queue: name is empty"),
    # work
    ({"job": {"target": "job"}}, "no FILE[:OBJECT]"),
    ({"job": {"target": "job.py:"}}, "no FILE[:OBJECT]"),
    ({"job": {"target": "job.py; rm -rf /"}}, "a shell would read in its own way"),
    ({"job": {"target": "job.py", "args": ["$(id)"]}}, "a shell would read in its own way"),
    ({"job": {"target": "job.py", "args": ["--name=x"]}}, "--name is written already"),
    ({"job": {"target": "job.py", "run": "-x"}}, "can't be the value of a label"),
    ({"job": {"target": "_job.py"}}, "the run is called as the file"),
    ({"job": {"target": "job.py", "working_dir": "."}}, "no archive that pods could fetch"),
    ({"job": {"target": "job.py", "retries": -1}}, "retries is too small"),
    ({"job": {"target": "job.py", "ttl_s": -1}}, "ttl_s is too small"),
    ({"job": {"target": "job.py", "deadline_s": 0}}, "deadline_s is too small"),
    ({"cron": {"schedule": "daily", "run": "n-%d"}}, "no schedule"),
    ({"cron": {"schedule": "0 3 * *", "run": "n-%d"}}, "no schedule"),
    ({"cron": {"schedule": "61 3 * * *", "run": "n-%d"}}, "'61' as the minute, which is 0 to 59"),
    ({"cron": {"schedule": "0 3 * * 7", "run": "n-%d"}}, "Sunday is 0"),
    ({"cron": {"schedule": "0 5-3 * * *", "run": "n-%d"}}, "ends before it begins"),
    ({"cron": {"schedule": "*/0 3 * * *", "run": "n-%d"}}, "steps of 0"),
    ({"cron": {"schedule": "0 3 * * *", "run": "n-%d", "time_zone": "Mars/Base"}}, "no time zone"),
    ({"cron": {"schedule": "0 3 * * *", "run": "n-%d", "time_zone": "Europe/Rom"}}, "did you mean Europe/Rome"),
    ({"cron": {"schedule": "0 3 * * *", "run": "nightly"}}, "has no time in it"),
    ({"cron": {"schedule": "0 3 * * *", "run": "n-%d", "time_zone": "Rome!"}}, "no time zone"),
    ({"cron": {"schedule": "0 * * * *", "run": "n-%d-%H"}}, "each retry would read off the clock anew"),
    ({"service": {}}, "a served model needs a name"),
    ({"service": {"args": {"model": "gdp"}}}, "a token, or for none"),
    ({"service": {"args": {"modle": "gdp"}}}, "did you mean model"),
    ({"service": {"args": {"model": "gdp", "replicas": "two"}}}, "replicas is no whole number"),
    ({"service": {"import_path": "app"}}, "names no application"),
    ({"service": {"import_path": "app:serve", "route_prefix": "gdp"}}, "no path"),
    ({"service": {"import_path": "app:serve", "upgrade": "newcluster"}}, "did you mean NewCluster"),
    ({"slurm": {"cpus": 0}}, "slurm: cpus is too small"),
    ({"slurm": {"cpus": 1, "nodes": 0}}, "slurm: nodes is too small"),
    ({"slurm": {"cpus": 1, "gpu_type": "a100"}}, "names a kind of GPU, but has none"),
    ({"slurm": {"cpus": 1, "memory": "64Gi"}}, "memory is no size"),
    ({"slurm": {"cpus": 1, "time": "4h"}}, "no time limit"),
    ({"slurm": {"cpus": 1, "time": "2"}}, "leaves no time"),
    ({"slurm": {"cpus": 1, "time": "00:01:30"}}, "leaves no time"),
    ({"slurm": {"cpus": 1, "partition": "a b"}}, "characters that it can't have"),
    ({"slurm": {"cpus": 1, "setup": ["a\nb"]}}, "is several"),
]


@pytest.mark.parametrize(("table", "said"), WRONG, ids=[f"{place}" for place in range(len(WRONG))])
def test_a_wrong_configuration_gets_one_clear_error(table: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        from_table({**GOOD, **table})
    assert said in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_all_that_is_missing_is_told_at_once() -> None:
    for kind, settings in (
        ("job", "groups.cpu.max=4 --set groups.cpu.cpus=8 --set groups.cpu.memory=32Gi --set job.target=FILE.py"),
        ("cron", "--set store=s3://bucket/folder --set \"cron.schedule='0 3 * * *'\" --set cron.run=nightly-%Y%m%d"),
        ("service", "--set service.args.model=MODEL --set service.args.token_env=TOKEN"),
    ):
        with pytest.raises(UsageError) as raised:
            of_kind(from_table({}), kind)
        assert f"umbel manifest {kind} --set" in str(raised.value)
        assert settings in str(raised.value)


OF_KIND: list[tuple[str, dict[str, Any], str]] = [
    ("clsuter", {}, "did you mean cluster"),
    ("cluster", {"groups": {}}, "there are no workers"),
    ("cluster", {"store": "umbel-store"}, "pods on other machines"),
    ("cluster", {"store": "file:///tmp/x"}, "pods on other machines"),
    ("job", {"job": None}, "what to run"),
    ("job", {"store": None}, "needs a store"),
    ("job", {"name": "n" * 48}, "at most 47"),
    ("cron", {"cron": None}, "needs a schedule"),
    ("cron", {"name": "n" * 42}, "at most 41"),
    ("cron", {"queue": {"scheduler": "kueue", "name": "q"}}, "can't name a queue"),
    ("service", {"service": None}, "needs a model, or an application"),
]


@pytest.mark.parametrize(("kind", "table", "said"), OF_KIND)
def test_what_a_kind_lacks_is_told(kind: str, table: Mapping[str, Any], said: str) -> None:
    given = {key: value for key, value in {**GOOD, **table}.items() if value is not None}
    with pytest.raises(UsageError) as raised:
        of_kind(from_table(given), kind)
    assert said in str(raised.value)


GOOD_TOO: list[dict[str, Any]] = [
    {"labels": {"app.kubernetes.io/part-of": "gdp", "team": "x"}},
    {"image": "team/gdp:1.4.2", "ray_version": "2.60.0"},
    {"service": {"import_path": "app:serve", "args": {"token_env": "TOKEN", "token_file": "/run/token"}}},
    {"service": {"args": {"model": "gdp", "no_token": "true"}}},
    {"slurm": {"cpus": 1, "setup": ['export TOKEN="$(cat ~/.token)"', "export HF_TOKEN=$TOKEN", "source secrets.sh"]}},
    {"job": {"target": "job.py", "retries": 0}, "cron": {"schedule": "0 * * * *", "run": "n-%d-%H"}},
    {"job": {"target": "job.py", "args": ["--budget", "trials=5"]}},
]


@pytest.mark.parametrize("table", GOOD_TOO)
def test_what_only_looks_wrong_passes(table: Mapping[str, Any]) -> None:
    from_table({**GOOD, **table})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 3600), ("4:30", 270), ("04:00:00", 14400), ("2-00", 172800), ("1-02:03", 93780), ("1-02:03:04", 93784)],
)
def test_time_limits_are_read_as_slurm_does(text: str, seconds: int) -> None:
    assert Slurm(cpus=1, time=text).time_s == seconds


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_good_passes(kind: str) -> None:
    assert of_kind(from_table(GOOD), kind).groups[0].max == 4


@pytest.mark.parametrize("page", ["clusters", "serving"])
def test_what_the_pages_show_is_good(page: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / f"{page}.md").read_text()
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    config = from_table({"groups": {"cpu": GROUP}, **tomllib.loads(shown)["tool"]["umbel"]["cluster"]})
    for kind in ("cluster", *(["job"] if config.job else []), *(["service"] if config.service else [])):
        assert of_kind(config, kind).groups
    assert (config.slurm is not None) == (page == "clusters")


def test_settings_come_from_the_nearest_file_and_from_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.umbel.cluster]\nname = "here"\ngroups.cpu = { max = 4, cpus = 8, memory = "32Gi" }\n')
    given = ["groups.cpu.max=9", "groups.gpu = { max = 1, cpus = 4, memory = '8Gi', gpus = 1 }", "store=s3://b/x"]
    config = read_config(None, given)
    assert (config.name, config.store) == ("here", "s3://b/x")
    assert [(each.name, each.max, each.gpus) for each in config.groups] == [("cpu", 9, 0), ("gpu", 1, 1)]
    given = ["env.OMP_NUM_THREADS=1", "env.V=3.10", "env.ON=true", "slurm.time=04:00:00", "slurm.cpus=2"]
    config = read_config(None, [*given, "service={import_path='app:serve',args={no=true}}", "job.target=a.py"])
    assert config.env == {"OMP_NUM_THREADS": "1", "V": "3.10", "ON": "true"}
    assert config.slurm is not None
    assert config.slurm.time == "04:00:00"
    assert config.service is not None
    assert config.service.args == {"no": "true"}
    assert read_config(None, ["job.target=a.py", "job.args=['--workers', 2]"]).job == Job(
        target="a.py", args=("--workers", "2")
    )
    for setting, said in (
        ("x", "a name and a value"),
        (".=1", "a name and a value"),
        ("name.x=1", "holds no settings"),
    ):
        with pytest.raises(UsageError, match=said):
            read_config(None, [setting])
    file.write_text("[tool")
    with pytest.raises(UsageError, match="is no TOML"):
        read_config(None)
    file.write_text("[tool.umbel.clutser]\nname = 3\n")
    with pytest.raises(UsageError, match=r"(?s)\[tool.umbel.clutser\].*did you mean \[tool.umbel.cluster\]"):
        read_config(None)
    file.write_text("[tool.umbel]\ncluster = 3\n")
    with pytest.raises(UsageError, match="is not a table"):
        read_config(None)
    with pytest.raises(UsageError, match="can't be read"):
        read_config(tmp_path / "nothing.toml")


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config(None) == ClusterConfig()
    assert ClusterConfig().token_auth
