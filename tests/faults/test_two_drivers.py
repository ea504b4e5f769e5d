"""One process writes a run: a second one is told who does, and may go on as soon as that one is dead."""

from __future__ import annotations

import getpass
import socket
import time

import pytest

from tests.faults.processes import Scene, until

pytestmark = pytest.mark.ray


def test_a_second_process_is_refused(inline_scene: Scene) -> None:
    scene = inline_scene
    scene.order("wait", 100)
    holder = scene.start()
    until(lambda: 100 in [trial for trial, _, _ in scene.started()], "the first is at work")
    scene.forget()
    second = scene.start()
    assert second.wait() == 1
    message = second.said[second.said.index("RunHeldError") :]
    assert second.said.count("RunHeldError") == 1
    assert message.startswith("RunHeldError: another process is writing the run 'work'")
    assert f"{getpass.getuser()} on {socket.gethostname()}, process {holder.pid}, since " in message
    assert "driver.py" in message
    assert "expected: one writer a run" in message
    assert f"kill {holder.pid} on {socket.gethostname()}" in message
    assert scene.started() == []
    scene.go()
    holder.finish()  # undisturbed
    assert scene.durable() == list(range(200))


def test_a_dead_holder_is_taken_over_at_once(inline_scene: Scene) -> None:
    scene = inline_scene
    scene.order("wait", 100)
    holder = scene.start()
    until(scene.started, "the first is at work")
    holder.kill()
    scene.go()
    begun = time.monotonic()
    scene.start().finish()
    assert time.monotonic() - begun < 25  # its lease would have lasted 30 s
    assert scene.durable() == list(range(200))
    assert scene.run.status == "done"


def test_one_that_is_stopped_holds_it_still(inline_scene: Scene) -> None:
    """A process that was stopped (Ctrl-Z) lives, and will go on writing when it wakes."""
    import signal

    scene = inline_scene
    scene.order("wait", 100)
    holder = scene.start()
    until(scene.started, "the first is at work")
    holder.process.send_signal(signal.SIGSTOP)
    assert scene.start().wait() == 1
    holder.process.send_signal(signal.SIGCONT)
    scene.go()
    holder.finish()
    assert scene.durable() == list(range(200))
