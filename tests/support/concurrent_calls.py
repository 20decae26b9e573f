"""The same call from several threads at once."""

import threading


def wrong(right, inputs, times):
    """The inputs, by index, for which `right(i)` was ever false in a thread that asked `times`."""
    found = []

    def work(i):
        for _ in range(times):
            if not right(i):
                found.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(inputs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
