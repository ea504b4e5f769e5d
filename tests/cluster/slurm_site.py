"""A real Slurm of one node for tests: munged, slurmctld and slurmd in a folder of their own, on free ports of the
loopback interface, ended by their process ids."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

__all__ = ["CPUS", "slurm_site"]

#: Processors that the node pretends to have.
CPUS = 2
_DEADLINE_S = 60.0
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")


@contextmanager
def slurm_site() -> Iterator[dict[str, str]]:
    """A site with the partitions "cpu" and "gpu" (of one GPU that isn't any); gives what Slurm's commands need.

    The test is skipped where Slurm is not installed, or may not be started.
    """
    places = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in _PROGRAMS}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons start jobs only as root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [str(places[name]), *arguments],
                    env=os.environ | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                )
            )

    try:
        _write_settings(folder)
        files = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")}
        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files.values())
        _until((folder / "munge.socket").exists, folder, processes)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D", "-N", "here")

        def idle() -> bool:
            answer = subprocess.run(
                [str(places["scontrol"]), "show", "node", "here"],
                env=os.environ | environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            return "State=IDLE" in answer.stdout and "NOT_RESPONDING" not in answer.stdout

        _until(idle, folder, processes)
        yield environment
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _write_settings(folder: Path) -> None:
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    (folder / "gres.conf").write_text("NodeName=here Name=gpu File=/dev/null\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
    (folder / "slurm.conf").write_text(
        f"""
ClusterName=test
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MinJobAge=300
KillWait=5
GresTypes=gpu
NodeName=here NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={CPUS} Gres=gpu:1
PartitionName=cpu Nodes=here Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=here MaxTime=60 State=UP
"""
    )


def _until(found: Callable[[], bool], folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + _DEADLINE_S
    while not found():
        said = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in folder.glob("*.log"))
        assert all(process.poll() is None for process in processes), said
        assert time.monotonic() < end, said
        time.sleep(0.05)
