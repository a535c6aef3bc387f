"""Decode processes: images fail alone, workers are replaced, memory is bounded, and nothing is left behind."""

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from core.errors import InputTooLarge, InvalidImage, ModelUnavailable, Overloaded
from core.types import Box, Cropped
from models.config import EncoderConfig
from models.decode_processes import DecodeProcesses, Slot, Slots, _is_alive
from models.encoder import load_encoder
from models.images import ImageLimits
from tests.support.image_files import file
from tests.support.odd_decoders import SHAPE, NoDecoder, obey
from tests.support.waiting import wait_until

PATIENCE_S = 30


@pytest.fixture
def slots() -> Slots:
    return Slots(SHAPE, 8)


@pytest.fixture
def processes(slots: Slots) -> Iterator[DecodeProcesses]:
    made = DecodeProcesses(obey, slots, 1, longest_s=PATIENCE_S)
    yield made
    made.close()


def level(outcome: object) -> int:
    assert isinstance(outcome, np.ndarray), outcome
    assert outcome.shape == SHAPE
    return int(outcome[0, 0, 0])


def pid(processes: DecodeProcesses) -> int:
    (outcome,) = processes.decode([b"pid"])
    assert isinstance(outcome, np.ndarray)
    return int.from_bytes(outcome.tobytes()[:4])


def idle(processes: DecodeProcesses) -> socket.socket:
    """Return the only worker's connection."""
    worker = processes._idle.get()
    processes._idle.put(worker)
    assert worker is not None
    return worker


def test_pixels_are_those_of_the_encoder_and_each_file_fails_by_its_own_error() -> None:
    limits = ImageLimits(max_pixels=5000)
    encoder = load_encoder(EncoderConfig(name="tested", family="fake", limits=limits))
    random = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    photo, large = file(Image.fromarray(random), "PNG"), file(Image.new("RGB", (100, 100)), "PNG")
    inputs = [photo, b"no image", Cropped(photo, Box(0.1, 0.2, 0.5, 0.5)), large]
    processes = DecodeProcesses(encoder.decoder(), Slots((3, 16, 16), 8), 1)
    whole, broken, part, refused = processes.decode(inputs)
    assert np.array_equal(whole, encoder.decode(inputs[0]))
    assert np.array_equal(part, encoder.decode(inputs[2]))
    assert isinstance(broken, InvalidImage)
    assert "it looks like text" in broken.message
    assert isinstance(refused, InputTooLarge)
    processes.close()


def test_a_bug_brings_its_traceback_whatever_it_is(processes: DecodeProcesses) -> None:
    before, bug, odd, shape, after = processes.decode([b"1", b"bug", b"odd", b"shape", b"2"])
    assert (level(before), level(after)) == (1, 2)
    assert isinstance(bug, ZeroDivisionError)
    assert isinstance(odd, RuntimeError)
    assert str(odd) == "Odd: 1 and 2"
    assert isinstance(shape, ValueError)
    for error in (bug, odd, shape):
        assert isinstance(error, Exception)
        assert "Traceback" in error.__notes__[0]
        assert "_decode_into" in error.__notes__[0]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV])
def test_an_image_whose_worker_dies_is_tried_once_more(
    processes: DecodeProcesses, slots: Slots, tmp_path: Path, ending: signal.Signals
) -> None:
    first = pid(processes)
    outcomes = processes.decode([b"7", b"once %s/died signal %d" % (bytes(tmp_path), ending), b"9"])
    assert [level(each) for each in outcomes] == [7, 1, 9]
    assert pid(processes) != first
    del outcomes
    assert slots.free == slots.count


@pytest.mark.parametrize(
    ("ending", "error", "says"),
    [(signal.SIGKILL, Overloaded, "no memory"), (signal.SIGSEGV, InvalidImage, "SIGSEGV")],
)
def test_an_image_that_ends_two_workers_fails_alone(
    processes: DecodeProcesses, slots: Slots, ending: signal.Signals, error: type[Exception], says: str
) -> None:
    before, fatal, other, after = processes.decode([b"7", b"signal %d" % ending, b"bug", b"9"])
    assert (level(before), level(after)) == (7, 9)
    assert isinstance(fatal, error)
    assert says in str(fatal)
    assert isinstance(other, ZeroDivisionError)
    del before, after
    assert slots.free == slots.count


def test_an_image_that_takes_too_long_is_given_up(slots: Slots) -> None:
    # A thread of Ray or of a test may have blocked signals, which new processes inherit.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGCHLD])
    try:
        processes = DecodeProcesses(obey, slots, 1, longest_s=0.2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for images in ([b"hang"], [b"9", b"hang"]):
        late = processes.decode(images)[-1]
        assert isinstance(late, InvalidImage)
        assert "too long" in late.message
    # On a busy machine any image may take that long.
    wait_until(lambda: isinstance(processes.decode([b"9"])[0], np.ndarray), PATIENCE_S)
    processes.close()


def test_workers_come_back_where_the_fork_server_was_killed(slots: Slots) -> None:
    processes = DecodeProcesses(obey, slots, 3)
    workers = [psutil.Process(pid(processes)) for _ in range(3)]
    server = workers[0].parent()
    assert server is not None
    server.kill()
    psutil.wait_procs(workers, PATIENCE_S)
    # No image pays for workers that died before.
    assert [level(processes.decode([b"%d" % number])[0]) for number in range(6)] == list(range(6))
    assert len({pid(processes) for _ in range(3)}) == 3
    processes.close()


def test_a_worker_that_died_while_it_had_nothing_to_do_costs_no_image_its_retry(
    processes: DecodeProcesses, tmp_path: Path
) -> None:
    worker = psutil.Process(pid(processes))
    worker.kill()
    psutil.wait_procs([worker], PATIENCE_S)
    wait_until(lambda: not _is_alive(idle(processes)), PATIENCE_S)
    (outcome,) = processes.decode([b"once %s/died signal 9" % bytes(tmp_path)])
    assert level(outcome) == 1


def test_a_decoder_that_does_not_load_is_an_error(slots: Slots, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelUnavailable, match="do not start"):
        DecodeProcesses(NoDecoder(), slots, 1)  # type: ignore[arg-type]
    assert "this library is missing" in capfd.readouterr().err


def test_pixels_and_their_views_hold_a_slot_until_nobody_has_them(slots: Slots) -> None:
    held = [np.asarray(slots.take(0)) for _ in range(slots.count)]
    with pytest.raises(Overloaded, match="wait for the model"):
        slots.take(0.01)
    held[3][:] = 7
    view = held.pop(3)[1:, :, ::-1]
    assert slots.free == 0
    assert view.min() == view.max() == 7
    del view
    assert slots.free == 1
    assert slots.take(0).number == 3


def test_a_call_that_gets_no_slot_fails_and_keeps_none(
    processes: DecodeProcesses, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.decode_processes.PATIENCE_S", 0.01)
    held = [slots.take(0) for _ in range(slots.count - 1)]
    outcomes = processes.decode([b"1", b"2"])
    assert [type(each) for each in outcomes] == [Overloaded, Overloaded]
    assert slots.free == 1
    del held
    assert level(processes.decode([b"3"])[0]) == 3


def test_images_of_a_call_wait_for_their_slots_together(
    processes: DecodeProcesses, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, take, limits = iter([100.0, 100.0, 120.0, 140.0]), slots.take, list[float]()

    def taken(timeout_s: float) -> Slot:
        limits.append(timeout_s)
        return take(timeout_s)

    monkeypatch.setattr("models.decode_processes.monotonic", lambda: next(now))
    monkeypatch.setattr(slots, "take", taken)
    assert [level(each) for each in processes.decode([b"1", b"2", b"3"])] == [1, 2, 3]
    assert limits == [30, 10, 0]


def test_the_shared_memory_has_no_name(slots: Slots) -> None:
    assert os.readlink(f"/proc/self/fd/{slots.file}").startswith("/memfd:")


def test_processes_that_nobody_has_any_more_end(slots: Slots) -> None:
    processes = DecodeProcesses(obey, slots, 1)
    worker = psutil.Process(pid(processes))
    family = [worker, worker.parent()]
    del processes
    gc.collect()
    _, alive = psutil.wait_procs([each for each in family if each], PATIENCE_S)
    assert not alive


OWNER = """
import sys, threading
from models.decode_processes import DecodeProcesses, Slots, _is_alive
from tests.support.odd_decoders import SHAPE, obey
processes = DecodeProcesses(obey, Slots(SHAPE, 8), 2)
threading.Thread(target=processes.decode, args=([f"touch {sys.argv[1]}".encode()],)).start()
print("started", flush=True)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_the_owner_ends_busy_workers_too(tmp_path: Path, ending: signal.Signals) -> None:
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", OWNER, str(begun)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        wait_until(begun.exists, PATIENCE_S)
        started = psutil.Process(owner.pid)
        # The fork server and two workers, of which the other may not have been forked yet.
        wait_until(lambda: len(started.children(recursive=True)) == 3, PATIENCE_S)
        family = started.children(recursive=True)
        owner.send_signal(ending)
        owner.wait(PATIENCE_S)
    _, alive = psutil.wait_procs(family, PATIENCE_S)
    assert not alive
