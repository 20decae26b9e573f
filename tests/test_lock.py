"""The lock that neither a fork nor a signal handler finds closed for ever."""

import os
import threading

from jsc._lock import Lock


def in_a_child(function):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if function() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def can_be_had(lock):
    found = lock.acquire(timeout=0)
    if found:
        lock.release()
    return found


def elsewhere(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_one_thread_at_a_time_that_may_enter_again():
    lock = Lock()
    with lock, lock:
        assert not elsewhere(lambda: can_be_had(lock))
    assert elsewhere(lambda: can_be_had(lock))


def test_a_child_finds_it_open_whoever_held_it():
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert not can_be_had(lock)
    assert in_a_child(lambda: can_be_had(lock))
    done.set()
    thread.join()
    with lock:  # held by the thread that forks: the child leaves it as its parent does

        def leave():
            lock.release()
            return elsewhere(lambda: can_be_had(lock))

        assert in_a_child(leave)
