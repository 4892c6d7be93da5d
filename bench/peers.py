"""The peers' side of the stream benchmark: a no-op job that counts itself, and a worker each.

Run by an interpreter that has the peers (requirements/peers.in), never by ours: they need other versions of redis-py.
`python bench/peers.py NAME URL JOBS` prints jobs per second, from the first job done to the last.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable

DONE = {"count": 0, "first": 0.0, "last": 0.0}


def done() -> None:
    """Note that a job ended."""
    now = time.perf_counter()
    DONE["first"] = DONE["first"] or now
    DONE["last"] = now
    DONE["count"] += 1


def rate() -> float:
    """Return jobs per second between the first and the last job."""
    return (DONE["count"] - 1) / max(DONE["last"] - DONE["first"], 1e-9)


def arq(url: str, jobs: int) -> None:
    """Run arq's worker until its queue is empty."""
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker

    async def noop(_: object) -> None:
        done()

    async def run() -> None:
        settings = RedisSettings.from_dsn(url)
        pool = await create_pool(settings)
        for _ in range(jobs):
            await pool.enqueue_job("noop")
        from arq.worker import func

        worker = Worker([func(noop, name="noop")], redis_settings=settings, burst=True, max_jobs=100, poll_delay=0.01)
        await worker.async_run()

    asyncio.run(run())


def dramatiq(url: str, jobs: int) -> None:
    """Run dramatiq's worker with eight threads until its queue is empty."""
    import dramatiq as library
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
    library.set_broker(broker)

    @library.actor
    def noop() -> None:
        done()

    for _ in range(jobs):
        noop.send()
    worker = library.Worker(broker, worker_threads=8)
    worker.start()
    _until(jobs)
    worker.stop()


def celery(url: str, jobs: int) -> None:
    """Run a Celery worker with a pool of threads."""
    from celery import Celery

    app = Celery("peers", broker=url)
    app.conf.update(worker_hijack_root_logger=False, worker_redirect_stdouts=False)
    app.conf.broker_connection_retry_on_startup = True

    @app.task(name="noop", ignore_result=True)
    def noop() -> None:
        done()

    for _ in range(jobs):
        noop.delay()
    arguments = ["worker", "--pool=threads", "--concurrency=8", "--loglevel=ERROR", "--without-mingle"]
    threading.Thread(target=lambda: app.worker_main([*arguments, "--without-gossip"]), daemon=True).start()
    _until(jobs)


def taskiq(url: str, jobs: int) -> None:
    """Run taskiq's receiver over its Redis Streams broker."""
    from taskiq.receiver import Receiver
    from taskiq_redis import RedisStreamBroker

    async def run() -> None:
        broker = RedisStreamBroker(url=url)
        broker.is_worker_process = True

        @broker.task(task_name="noop")
        async def noop() -> None:
            done()

        await broker.startup()
        for _ in range(jobs):
            await noop.kiq()
        receiver = Receiver(broker, max_async_tasks=100, run_startup=False)
        listening = asyncio.create_task(receiver.listen(asyncio.Event()))
        while DONE["count"] < jobs:  # noqa: ASYNC110 - a peer offers no event for this
            await asyncio.sleep(0.01)
        listening.cancel()

    asyncio.run(run())


def _until(jobs: int) -> None:
    while DONE["count"] < jobs:
        time.sleep(0.01)


PEERS: dict[str, Callable[[str, int], None]] = {"arq": arq, "celery": celery, "dramatiq": dramatiq, "taskiq": taskiq}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    print(rate(), flush=True)
    # Daemon threads of a peer must not keep the figure waiting.
    sys.stdout.close()
    import os

    os._exit(0)
