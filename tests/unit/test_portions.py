"""Calls to an encoder stay within what can be carried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import portions as module
from core.portions import batched_by_bytes


@given(st.lists(st.integers(0, 30), max_size=60))
def test_batches_keep_order_and_limits(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_ENCODE_BYTES", 20)
        patch.setattr(module, "MAX_ENCODE_INPUTS", 4)
        cut = list(batched_by_bytes(sizes, lambda size: size))
    assert [size for batch in cut for size in batch] == sizes
    assert all(len(batch) <= 4 and (sum(batch) <= 20 or len(batch) == 1) for batch in cut)
