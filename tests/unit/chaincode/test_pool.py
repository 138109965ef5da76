"""The pool's bounds, and calls that wait for what others give them."""

import threading
import time

from flexrelay_chaincode.pool import Place, Pool, lane_here


def test_calls_up_to_the_limit_and_a_defect_costs_none() -> None:
    pool, places, ended = Pool(threads=1, limit=2), [Place(), Place()], list[str]()

    def wait(place: Place) -> None:
        ended.append(place.wait())

    def fail() -> None:
        raise ValueError("a defect")

    assert pool.submit(lambda: wait(places[0])) and pool.submit(lambda: wait(places[1]))
    assert not pool.submit(fail)
    assert (pool.taken, ended) == (2, [])
    places[1].give("second")
    assert (pool.taken, ended) == (1, ["second"])
    assert pool.submit(fail) and pool.taken == 1
    places[0].give("first")
    assert (pool.taken, ended) == (0, ["second", "first"])


def test_what_another_thread_gives_waits_for_the_lane() -> None:
    pool, place, ended = Pool(threads=1, limit=2), Place(), list[str]()
    pool.submit(lambda: ended.append(place.wait() + place.wait()))
    for text in ("a", "b"):
        other = threading.Thread(target=place.give, args=(text,))
        other.start()
        other.join()
    assert ended == [] and lane_here().alive == 1
    lane_here().resume()
    assert ended == ["ab"] and lane_here().alive == 0


def test_what_is_given_before_the_wait_is_there() -> None:
    pool, place, ended = Pool(threads=1, limit=2), Place(), list[str]()
    place.give("early")
    pool.submit(lambda: ended.append(place.wait()))
    assert ended == ["early"]


def test_hanging_is_when_no_thread_is_left() -> None:
    pool = Pool(threads=2, limit=4)
    assert pool.lend() and pool.stalled_s == 0.0
    assert not pool.lend()
    time.sleep(0.02)
    assert not pool.lend() and pool.stalled_s >= 0.02
    pool.returned()
    assert pool.stalled_s == 0.0 and pool.lend()
