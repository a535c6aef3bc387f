"""Where the fixtures are."""

import pytest

pytest_plugins = ["tests.fixtures_catalog", "tests.fixtures_milvus"]

pytest.register_assert_rewrite("tests.contracts")
