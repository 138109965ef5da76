"""The pool's two bounds, and what it says of contracts that hang."""

import threading
import time

from flexrelay_chaincode.pool import Pool


def test_calls_wait_up_to_the_limit_and_a_defect_costs_no_thread() -> None:
    pool, gate, ran = Pool(threads=1, limit=3), threading.Event(), threading.Semaphore(0)

    def fail() -> None:
        ran.release()
        raise ValueError("a defect")

    assert pool.submit(lambda: gate.wait(10) and None)
    assert pool.submit(fail) and pool.submit(fail)
    assert not pool.submit(fail)
    assert pool.taken == 3
    gate.set()
    assert ran.acquire(timeout=10) and ran.acquire(timeout=10)
    while pool.taken:
        time.sleep(0.001)
    assert pool.stalled_s == 0.0 and pool.submit(fail) and ran.acquire(timeout=10)
    pool.close()


def test_hanging_is_when_no_thread_is_left_and_nothing_ends() -> None:
    pool, gate = Pool(threads=2, limit=4), threading.Event()
    pool.submit(lambda: gate.wait(10) and None)
    time.sleep(0.05)
    assert pool.stalled_s == 0.0
    pool.submit(lambda: gate.wait(10) and None)
    assert pool.stalled_s >= 0.05
    gate.set()
    pool.close()
