"""Clients that write in the background while something happens to the suite."""
import threading

from .machine import wait_until


class Writers:
    """Runs `_run(number, count)` of a subclass on `count` threads until stop(); it looks at
    `ended`, and adds what went wrong to `errors`."""

    def __init__(self, count):
        self.ended, self.errors, self.written = False, [], 0
        self.threads = [threading.Thread(target=self._run, args=(number, count), daemon=True)
                        for number in range(count)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.ended = True
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer hangs"

    def go_on(self, many=200):
        """Until that much more was written, without an error."""
        written = self.written
        wait_until(lambda: self.errors or self.written > written + many, 30)
        assert not self.errors, self.errors

    def _run(self, number, count):
        raise NotImplementedError
