"""The pages about size say what their inputs give, and the arithmetic is what the words beside it say."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Blip2ForImageTextRetrieval

from benchmarks import weights
from benchmarks.architectures import eight_bit_matrices
from benchmarks.scale import __main__ as scale
from benchmarks.scale import arithmetic
from benchmarks.scale.inputs import INPUTS, MODELS
from core.config import BulkConfig
from milvus.collections import _DEFAULT_PARAMS
from milvus.config import IndexConfig
from models.blip2 import IN_FULL
from models.config import EncoderConfig
from models.device import place
from models.huggingface import load_model
from tests.support.checkpoints import DEMO

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_about_scale_is_what_the_inputs_give() -> None:
    page = (DOCS / "scale.md").read_text()
    assert page == scale.filled(page), "run `make generate`"


@pytest.mark.slow
def test_the_weights_of_the_page_about_sizing_are_those_of_the_architectures() -> None:
    page = (DOCS / "sizing.md").read_text()
    assert page == weights.filled(page), "run `make generate`"


def test_the_matrices_that_count_as_8_bit_are_those_that_loading_makes_so() -> None:
    config = EncoderConfig(
        name="demo", family="blip2", checkpoint=str(DEMO / "blip2"), precision="int8", device="cpu"
    )
    model = load_model(Blip2ForImageTextRetrieval, DEMO / "blip2", place(config), in_full=IN_FULL)
    found = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.dtype == torch.int8
    }
    assert found == {*eight_bit_matrices(model)}
    assert found


def test_a_page_without_marks_is_refused() -> None:
    for filled in (scale.filled, weights.filled):
        with pytest.raises(ValueError, match="needs the lines"):
            filled("nothing here")


def test_every_input_has_a_value_and_says_where_it_comes_from() -> None:
    for name, each in INPUTS.items():
        assert each.value > 0, name
        assert each.source, name
    assert all(model.source for model in MODELS)


def test_every_input_is_reckoned_with() -> None:
    folder = Path(scale.__file__).parent
    text = (folder / "arithmetic.py").read_text() + (folder / "rows.py").read_text()
    assert [name for name in INPUTS if f'value("{name}")' not in text] == []


def test_inputs_that_are_ours_are_those_of_the_code() -> None:
    assert INPUTS["hnsw_m"].value == _DEFAULT_PARAMS["HNSW"]["M"]
    assert INPUTS["shard_images"].value == BulkConfig().shard_images
    (most,) = (each.le for each in IndexConfig.model_fields["shards"].metadata if hasattr(each, "le"))
    assert INPUTS["most_shards"].value == most


def test_a_million_images_by_hand() -> None:
    n = 1_000_000
    assert arithmetic.vector_bytes(n) == 4 * 2304 * n
    links = 3 * 16 * 10
    rows = 3 * INPUTS["scalar_bytes"].value
    assert arithmetic.hnsw_bytes(n) == n * (4 * 2304 + links + rows)
    assert arithmetic.sq8_bytes(n) == n * (2304 + rows)
    assert arithmetic.diskann_bytes(n) == pytest.approx(n * (0.225 * 4 * 2304 + rows))
    assert arithmetic.nodes(0.9 * 128 * 2**30) == 1
    assert arithmetic.nodes(0.9 * 128 * 2**30 + 1) == 2
    assert arithmetic.shards(n) == 1
    assert arithmetic.shards(10**9) == 16
    assert arithmetic.gpu_hours(3600, [MODELS[0]]) == pytest.approx(1 / (401.90 * 0.85))


def test_cost_a_million_does_not_depend_on_how_many() -> None:
    assert arithmetic.gpu_cost(10**9) / 1000 == pytest.approx(arithmetic.gpu_cost(10**6))
