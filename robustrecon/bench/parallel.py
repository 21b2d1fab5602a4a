"""Cells in several processes, on this machine or a cluster, by joblib's backends."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..types import InputError, unknown_name
from .model import load_benchmark_model
from .plan import AttackConfig
from .runner import Bench

BACKENDS = ("loky", "dask", "ray")
WATCH_SECONDS = 1.0  # between looks at whether the process that started a worker is still there
_ALONE = threading.Lock()  # a worker with several threads still has one model and one random state


@dataclass(frozen=True)
class WorkerSetup:
    """Where a worker finds a model and its data, and where it puts results; names only, so that little is sent.

    Attributes:
        model, data, data_dir, device: as for `load_benchmark_model`.
        weights: hash of the model's weights.
        detectors, alpha, correct_only, n, root: as for `Bench`.
        threads: that torch may use.
    """

    model: str
    data: str
    data_dir: str
    device: str
    weights: str
    detectors: tuple[str, ...]
    alpha: float
    correct_only: bool
    n: int
    root: str
    threads: int


@dataclass(frozen=True)
class Job:
    """What one worker does at a time: one attack at one eps on one model.

    Attributes:
        setup: where the model is.
        config: the attack.
        detectors: those that judge its images; one where the attack knows the detector.
    """

    setup: WorkerSetup
    config: AttackConfig
    detectors: tuple[str, ...]

    def run(self, bench: Bench) -> int:
        """Run it; returns the number of cells."""
        return len(bench.cells(self.config, self.detectors))


class Runnable(Protocol):
    """A job that a worker can do, once it has its model."""

    @property
    def setup(self) -> WorkerSetup: ...

    def run(self, bench: Bench) -> int: ...


def check_workers(workers: int, backend: str) -> None:
    """Check the number of workers and their backend.

    Raises:
        InputError: fewer than one worker, an unknown backend, or one that is not installed.
    """
    if workers < 1:
        raise InputError(f"workers: got {workers}, must be at least 1")
    if backend not in BACKENDS:
        unknown_name("backend", backend, BACKENDS)
    needed = {"loky": "joblib", "dask": "distributed", "ray": "ray"}[backend]
    try:
        __import__(needed)
    except ImportError:
        raise InputError(f"backend: {backend} is not installed; pip install 'robustrecon[{backend}]'") from None


def run_jobs(jobs: Iterable[Runnable], workers: int, backend: str) -> Iterator[int]:
    """Do every job; yields what each job's `run` returns as it ends, in any order (with Ray all at the end).

    `dask` uses the cluster that this process has a client of, or that `DASK_SCHEDULER_ADDRESS` names, and else starts
    `workers` processes; jobs of a worker that dies are done by another. `ray` likewise, with `RAY_ADDRESS`.

    Raises:
        InputError: a worker was killed, and no other could do its work.
    """
    with _backend(workers, backend) as settings, joblib.parallel_config(**settings, n_jobs=workers):
        starter = os.getpid() if backend == "loky" else None  # dask and ray end their workers themselves
        active, _ = joblib.parallel.get_active_backend()
        as_done = "generator_unordered" if active.supports_return_generator else "list"
        try:
            yield from joblib.Parallel(batch_size=1, return_as=as_done)(
                joblib.delayed(_do)(job, starter) for job in jobs
            )
        except _killed(backend) as error:
            raise InputError(
                f"workers: one of {workers} was killed (out of memory?); finished cells are kept, go on with fewer"
            ) from error


def _killed(backend: str) -> tuple[type[Exception], ...]:
    """What a backend raises when a worker died and no other worker could do its job."""
    if backend == "dask":
        from distributed import KilledWorker

        return (KilledWorker,)
    if backend == "ray":
        from ray.exceptions import RayActorError, WorkerCrashedError

        return (RayActorError, WorkerCrashedError)
    return (TerminatedWorkerError,)


@contextlib.contextmanager
def _backend(workers: int, backend: str) -> Iterator[dict[str, object]]:
    """joblib's settings for the backend; a cluster that is started here is stopped at the end."""
    if backend == "dask":
        with _dask_client(workers) as client:
            yield {"backend": "dask", "client": client}
    elif backend == "ray":
        import ray
        from ray.util.joblib import register_ray

        started = not ray.is_initialized()
        if started:
            local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}
            ray.init(log_to_driver=False, **local)
        register_ray()
        try:
            yield {"backend": "ray"}
        finally:
            if started:
                ray.shutdown()
    else:
        with warnings.catch_warnings():
            # Loky restarts a worker whose memory has grown; no work is lost.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            yield {"backend": backend}


@contextlib.contextmanager
def _dask_client(workers: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster, default_client

    with contextlib.ExitStack() as stack:
        try:
            client = default_client()
        except ValueError:  # there is none
            cluster = None
            if not dask.config.get("scheduler-address", None):
                cluster = stack.enter_context(
                    LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None)
                )
            client = stack.enter_context(Client(cluster))
        yield client


def _do(job: Runnable, starter: int | None) -> int:
    """Do a job in a worker, silently: the results are in their files."""
    if starter is not None:
        _end_with(starter)
    with _ALONE:
        torch.set_num_threads(job.setup.threads)
        return job.run(_bench(job.setup))


@cache
def _end_with(starter: int) -> None:
    """End this process soon after the one that started it is gone, even in the middle of a job.

    A process whose starter was killed gets another parent. (Not on Windows, where workers finish what they were given.)
    """

    def wait() -> None:
        while os.getppid() == starter:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    if os.getpid() != starter:  # joblib does the jobs in this process where it may not start others
        threading.Thread(target=wait, daemon=True).start()


@lru_cache(maxsize=8)
def _bench(setup: WorkerSetup) -> Bench:
    """The cells of a model; a process loads model and data once."""
    target = load_benchmark_model(setup.model, setup.data, setup.data_dir, setup.device, progress=False)
    if target.weights != setup.weights:
        raise InputError(f"model: {setup.model} has changed since the suite was started; start it again")
    root = Path(setup.root)
    return Bench(target, setup.detectors, setup.alpha, setup.n, root, False, setup.correct_only)
