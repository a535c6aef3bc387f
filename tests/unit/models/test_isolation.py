from collections.abc import Sequence

import numpy as np
import pytest

from core.errors import Internal, ModelUnavailable, VitrineError
from core.types import Vector
from models.encoder import answer_each

VECTOR = np.ones(2, np.float32)


class Model:
    def __init__(self, poison: set[int], healthy: bool = True) -> None:
        self.poison, self.healthy, self.calls = poison, healthy, 0

    def embed(self, inputs: Sequence[int]) -> list[Vector | VitrineError]:
        self.calls += 1
        if self.poison & set(inputs):
            raise RuntimeError("kernel failed")
        return [VECTOR for _ in inputs]


def answers(model: Model, count: int) -> list[Vector | VitrineError]:
    return answer_each(model.embed, range(count), lambda: model.healthy)


def test_an_input_that_breaks_the_batch_fails_alone_as_a_bug_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Model(poison={5, 6})
    broken = [isinstance(answer, Internal) for answer in answers(model, 32)]
    assert [at for at, is_broken in enumerate(broken) if is_broken] == [5, 6]
    assert caplog.text.count("Traceback") == 2
    assert "RuntimeError: kernel failed" in caplog.text


def test_no_memory_is_not_blamed_on_the_inputs() -> None:
    class Full(Model):
        def embed(self, inputs: Sequence[int]) -> list[Vector | VitrineError]:
            raise MemoryError

    assert all(isinstance(answer, ModelUnavailable) for answer in answers(Full(set()), 4))


def test_a_whole_batch_runs_once() -> None:
    model = Model(poison=set())
    assert len(answers(model, 32)) == 32
    assert model.calls == 1


def test_one_poison_costs_a_few_more_runs_only() -> None:
    model = Model(poison={17})
    answers(model, 32)
    assert model.calls <= 2 * 5 + 1


def test_a_broken_device_is_not_blamed_on_the_inputs() -> None:
    model = Model(poison=set(range(8)), healthy=False)
    assert all(isinstance(answer, ModelUnavailable) for answer in answers(model, 8))
    assert model.calls == 1
