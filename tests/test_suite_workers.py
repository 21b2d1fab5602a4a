"""The worker processes of a suite end with the process that started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robustrecon.bench import parallel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")


def forked(action: Callable[[], None]) -> int:
    """Run `action` in a copy of this process, which then ends with exit code 7."""
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
    finally:
        os._exit(7)


def test_a_worker_ends_once_its_starter_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WATCH_SECONDS", 0.01)
    worker_lives, of_worker = os.pipe()
    waiting, let_go = os.pipe()

    def work() -> None:
        parallel._end_with(os.getppid())
        time.sleep(20)

    def start() -> None:
        os.close(let_go)
        forked(work)
        os.close(of_worker)
        os.read(waiting, 1)

    starter = forked(start)
    os.close(of_worker)
    assert not select.select([worker_lives], [], [], 0.3)[0], "it works while its starter lives"
    os.write(let_go, b"x")
    os.waitpid(starter, 0)
    assert select.select([worker_lives], [], [], 5)[0], "the other end is closed when the worker is gone"
    for end in (worker_lives, waiting, let_go):
        os.close(end)


def test_a_process_that_does_its_own_jobs_does_not_end_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WATCH_SECONDS", 0.01)

    def work() -> None:
        parallel._end_with(os.getpid())
        time.sleep(0.2)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_killing_a_run_ends_its_workers_and_keeps_finished_cells(model_dir: Path, tmp_path: Path, backend: str) -> None:
    psutil = pytest.importorskip("psutil")
    if backend == "dask":
        pytest.importorskip("distributed")
    suite, out = tmp_path / "suite.toml", tmp_path / "out"
    suite.write_text(
        f'data = "digits"\nn = 50\n[[model]]\nname = "{model_dir}"\n[[attack]]\nname = "fgsm"\neps = 0.1\n'
        '[[attack]]\nname = "selective"\neps = [0.1, 0.2]\nparameters = { steps = 9000 }\n'
    )
    arguments = ["bench", "--suite", suite, "--out", out, "--workers", "2", "--backend", backend]
    command = [sys.executable, "-m", "robustrecon", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: len(list(out.rglob("fgsm*.json"))) == 2, 60)
        workers = psutil.Process(run.pid).children(recursive=True)
        assert len(workers) >= 2
        run.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(workers, timeout=10)
    for worker in left:
        worker.kill()
    assert not left
    assert len(list(out.rglob("*.json"))) == 2


def wait_for(done: Callable[[], bool], seconds: float) -> None:
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < seconds
        time.sleep(0.1)
