"""What threads print goes where each of them wants it."""

import io
import sys
import threading

import pytest

from tuner.ray_backend.host.printed import PrintedByThread


def test_each_thread_has_its_own_and_the_others_print_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before, said = io.StringIO(), list[str]()
    monkeypatch.setattr(sys, "stdout", PrintedByThread(before))

    def work() -> None:
        with PrintedByThread.to(said.append):
            print("of the thread", flush=True)
            with PrintedByThread.to(lambda text: None):
                print("of nobody")
            print("again")
        print("after")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print("of the process")
    assert "".join(said) == "of the thread\nagain\n"
    assert before.getvalue() == "after\nof the process\n"
    assert sys.stdout.writable() and not sys.stdout.isatty()
