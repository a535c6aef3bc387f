"""What ends `make demo` and `vitrine try`: Ctrl-C, SIGTERM and the end of the terminal alike."""

import signal
from collections.abc import Iterator

import pytest

from demo.service import on_interrupts

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        # The tests themselves may run below nohup, or in the background of a script.
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_is_an_interrupt_until_the_shutdown(number: signal.Signals) -> None:
    on_interrupts()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    on_interrupts(signal.SIG_IGN)
    signal.raise_signal(number)


def test_below_nohup_the_end_of_the_terminal_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_interrupts()
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
