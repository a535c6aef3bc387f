"""Calls to an encoder stay within what can be carried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import portions as module
from core.portions import portions


@given(st.lists(st.integers(0, 30), max_size=60))
def test_portions_keep_order_and_limits(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_ENCODE_BYTES", 20)
        patch.setattr(module, "MAX_ENCODE_INPUTS", 4)
        cut = list(portions(sizes, lambda size: size))
    assert [size for portion in cut for size in portion] == sizes
    assert all(len(portion) <= 4 and (sum(portion) <= 20 or len(portion) == 1) for portion in cut)
