"""An sbatch script that starts Ray across an allocation and runs a graph there.

`ray symmetric-run` would start Ray, too, but it ends with `ray stop`, which ends whatever else the same user runs with
Ray on these nodes, refuses to start where there is such another, and reports success if the head did not start. So the
script starts `ray start --block` as one step of the job, which Slurm ends with the job: see
docs/decisions/0022-ray-under-slurm.md.
"""

from __future__ import annotations

import shlex

from umbel.cluster.config.cluster_config import ClusterConfig
from umbel.cluster.config.work import NOTICE_S
from umbel.cluster.manifests.needs import check_complete
from umbel.scheduler.errors import UsageError

__all__ = ["slurm_script"]

#: What the step is called that Ray runs in.
_STEP = "umbel-ray"


def slurm_script(config: ClusterConfig) -> str:
    """The script, for ``sbatch``.

    Raises:
        UsageError: it is not said what to run, or which allocation to ask for.
    """
    check_complete(config, "slurm")
    assert config.job is not None
    if config.job.working_dir is not None:
        raise UsageError(
            "under Slurm a job runs in the folder that it is submitted in",
            got=f"working_dir {config.job.working_dir!r}",
            expected="no working_dir",
        )
    return "\n".join(
        [
            "#!/bin/bash",
            "# Written by `umbel manifest slurm`. In the project's folder, which all nodes see: sbatch FILE",
            *_directives(config),
            "set -euo pipefail",
            "",
            _OUT_OF_TIME,
            *_setup(config),
            _ADDRESS,
            *_start(config),
            *_run(config),
        ]
    )


def _directives(config: ClusterConfig) -> list[str]:
    assert config.slurm is not None
    assert config.job is not None
    slurm = config.slurm
    wanted: list[tuple[str, object]] = [
        ("job-name", config.job.run_name),
        ("nodes", slurm.nodes),
        ("ntasks-per-node", 1),
        ("cpus-per-task", slurm.cpus),
        ("time", slurm.time),
        ("output", "%x-%j.log"),
        ("open-mode", "append"),
        ("signal", f"B:USR1@{NOTICE_S}"),
    ]
    if slurm.gpus:
        wanted.append(("gpus-per-node", f"{slurm.gpu_type}:{slurm.gpus}" if slurm.gpu_type else slurm.gpus))
    for option, value in (
        ("mem", slurm.memory),
        ("partition", slurm.partition),
        ("account", slurm.account),
        ("qos", slurm.qos),
        ("constraint", slurm.constraint),
    ):
        if value is not None:
            wanted.append((option, value))
    directives = [f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in wanted]
    return [*directives, f"#SBATCH --{'requeue' if slurm.requeue else 'no-requeue'}"]


def _setup(config: ClusterConfig) -> list[str]:
    assert config.slurm is not None
    exported = [f"export {name}={shlex.quote(value)}" for name, value in config.env.items()]
    lines = [*config.slurm.setup, *exported]
    return ["# What makes umbel and the project available.", *lines, ""] if lines else []


_ADDRESS = r"""# Ports that are free on this node, the head: others may run Ray here, too.
read -r port client_port < <(python -c '
import socket
held = [socket.socket() for _ in range(2)]
for each in held:
    each.bind(("", 0))
print(*(each.getsockname()[1] for each in held))')
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
if [ "${#nodes[@]}" = 1 ]; then
  ip=127.0.0.1  # nobody else can connect
  export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0  # keeps Ray from putting the machine's own address in its place
else
  ip=$({ getent ahostsv4 "$(hostname)"; hostname -I | tr " " "\n"; } |
    awk '$1 ~ /[.]/ && $1 !~ /^127/ && !n++ {print $1}')
fi
export RAY_ADDRESS=$ip:$port

# Who connects must know a word that is made for this job only; it travels in the environment, and is written nowhere.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
export RAY_USAGE_STATS_ENABLED=0
# The nodes end together, when the job is done: a node has nobody to say first that it is going.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
"""


_OUT_OF_TIME = rf"""# {NOTICE_S // 60} minutes before the end Slurm sends USR1: what runs then is asked to end.
out_of_time=
running=
trap 'out_of_time=1; [ -z "$running" ] || kill -INT "$running" 2>/dev/null || true' USR1
attend() {{  # runs a command that is asked; status is the command's, or 130 if there is no time for it
  status=130
  [ -z "$out_of_time" ] || return 0
  "$@" &
  running=$!
  [ -z "$out_of_time" ] || kill -INT "$running" 2>/dev/null || true  # the signal came between these lines
  status=0
  wait "$running" || status=$?
  if [ "$out_of_time" ]; then  # the signal ended the waiting
    status=0
    wait "$running" || status=$?
  fi
  running=
}}
"""


def _start(config: ClusterConfig) -> list[str]:
    assert config.slurm is not None
    slurm = config.slurm
    amounts = f"--num-cpus={slurm.cpus} --num-gpus={slurm.gpus}"
    return [
        "# One step on all nodes: the first task is the head, the others join it. Slurm ends it with the job.",
        f"export ip port client_port amounts={shlex.quote(amounts)}",
        f'srun --job-name={_STEP} --nodes="${{#nodes[@]}}" --ntasks-per-node=1 --cpus-per-task={slurm.cpus} '
        + r"""--kill-on-bad-exit=1 bash -c '
  folder=$(mktemp -d /tmp/ray-XXXXXX)  # of this job alone; sockets need a short path
  trap "rm -rf $folder" EXIT
  trap "exit 143" TERM INT
  if [ "$SLURM_PROCID" = 0 ]; then
    ray start --head --block --node-ip-address="$ip" --port="$port" --ray-client-server-port="$client_port" \
      --min-worker-port=0 --max-worker-port=0 --include-dashboard=false --temp-dir="$folder" $amounts &
  else
    until (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null; do sleep 1; done
    ray start --block --address="$RAY_ADDRESS" --min-worker-port=0 --max-worker-port=0 --temp-dir="$folder" $amounts &
  fi
  ray=$!
  trap "kill $ray; wait $ray; exit 143" TERM INT
  wait $ray
' > "ray-$SLURM_JOB_ID.log" 2>&1 &""",
        "cluster=$!",
        "end_cluster() {  # asked to end, Ray removes what it has in /tmp; ended by srun, it would not come to it",
        "  local step  # found by its name: others may have been started before",
        f"  step=$(squeue --noheader --steps --jobs=$SLURM_JOB_ID --format='%j %i' | sed -n 's/^{_STEP} //p') || true",
        '  [ -z "$step" ] || scancel --signal=TERM "$step" 2>/dev/null || true',
        "  for _ in {1..30}; do kill -0 $cluster 2>/dev/null || return 0; sleep 1; done",
        "  kill $cluster 2>/dev/null || true",
        "}",
        "trap end_cluster EXIT",
        "",
    ]


def _run(config: ClusterConfig) -> list[str]:
    assert config.slurm is not None
    assert config.job is not None
    job = config.job
    words = ["umbel", "run", job.target, "--name", job.run_name]
    if config.store is not None:
        words += ["--store", config.store]
    if job.deadline_s is not None:
        words += ["--deadline", str(job.deadline_s)]
    lines = [
        "# Slurm itself queues a job again whose node fails; other failures are not tried again.",
        "set -m  # a shell's jobs in the background would not hear the interrupt",
        f"attend umbel cluster wait --nodes {config.slurm.nodes} --timeout 300",
        'if [ "$status" = 0 ]; then  # the run goes on where it was, if it exists',
        f"  attend {' '.join([*words, *job.args])}",
        "fi",
    ]
    if config.slurm.requeue:
        lines += [
            "# 75: a limit of the run's own stopped it; it is not asked for more time by itself.",
            'if [ "$out_of_time" ] && [ "$status" = 130 ]; then',
            '  scontrol requeue "$SLURM_JOB_ID"  # to go on',
            "fi",
        ]
    return [*lines, 'exit "$status"', ""]
