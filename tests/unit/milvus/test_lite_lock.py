"""The lock of the Lite owner lets readers in together, writers alone, and starves nobody."""

import threading
import time

from milvus.lite import ReadersWriterLock


def test_a_writer_is_alone_and_readers_are_together() -> None:
    lock, inside, seen = ReadersWriterLock(), [0, 0], []
    counting = threading.Lock()
    together = threading.Barrier(2)

    def meet() -> None:
        with lock.reading():
            together.wait(60)

    def enter(side: int, hold_s: float) -> None:
        with lock.writing() if side else lock.reading():
            with counting:
                inside[side] += 1
                seen.append(tuple(inside))
            time.sleep(hold_s)
            with counting:
                inside[side] -= 1

    readers = [threading.Thread(target=meet) for _ in range(2)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(timeout=60)
    assert not together.broken, "two readers have met"
    threads = [threading.Thread(target=enter, args=(n % 3 == 0, 0.005)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(seen) == 60
    assert all(writers == 0 or (writers == 1 and readers == 0) for readers, writers in seen)


def test_neither_side_starves_under_a_stream_of_the_other() -> None:
    for stream, single in (("reading", "writing"), ("writing", "reading")):
        lock, stop = ReadersWriterLock(), threading.Event()

        def crowd(lock: ReadersWriterLock = lock, name: str = stream, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                with getattr(lock, name)():
                    time.sleep(0.002)

        threads = [threading.Thread(target=crowd) for _ in range(4)]
        for thread in threads:
            thread.start()
        entered = threading.Event()

        def enter(
            lock: ReadersWriterLock = lock, name: str = single, entered: threading.Event = entered
        ) -> None:
            with getattr(lock, name)():
                entered.set()

        threading.Thread(target=enter).start()
        assert entered.wait(30)
        stop.set()
        for thread in threads:
            thread.join()
