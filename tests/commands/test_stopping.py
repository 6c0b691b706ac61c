import os
import signal

import pytest

from alignment.commands.stopping import stop_when_asked


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_is_seen_by_who_looks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with stop_when_asked() as must_stop:
        assert not must_stop()
        ask()
        assert must_stop()
        with pytest.raises(KeyboardInterrupt):
            ask()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_interrupts_while_nobody_looks():
    with pytest.raises(KeyboardInterrupt), stop_when_asked():
        ask()
