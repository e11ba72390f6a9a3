"""mixbench in a project's own tests: the ``mixbench`` fixture and the ``mixbench`` marker, which pytest finds by itself.

pytest loads this file in every run of every project in whose environment mixbench is, so it imports nothing that costs time;
torch comes with the first assertion.
"""

from collections.abc import Callable
from typing import Any

import pytest

_MARKER = """mixbench(model, inputs=None, **budgets): before the test runs, the model has to keep the budgets, such as \
macs="<= 200M"; without a model they are the budgets of mixbench.assert_cost in that test"""


class Costs:
    """What the fixture gives: `assert_cost`, with the marker's budgets where it has some for the whole test."""

    def __init__(self, budgets: dict[str, str]) -> None:
        self._budgets = budgets

    def assert_cost(self, model: Any, inputs: Any = None, /, **budgets: Any) -> None:
        """See `cost_assertion.assert_cost`."""
        __tracebackhide__ = True
        _assert_cost()(model, inputs, **self._budgets | budgets)


def _assert_cost() -> Callable[..., None]:
    from .cost_assertion import assert_cost

    return assert_cost


@pytest.fixture
def mixbench(request: pytest.FixtureRequest) -> Costs:
    """Hold models to budgets: ``mixbench.assert_cost(model, inputs, macs="<= 200M")``."""
    marker = request.node.get_closest_marker("mixbench")
    return Costs(dict(marker.kwargs) if marker and not marker.args else {})


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, also to ``--strict-markers``."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Check what markers name, as a part of the test: a model over its budget is a failure and no error of the set-up."""
    for marker in item.iter_markers("mixbench"):
        if marker.args:
            try:
                _assert_cost()(*marker.args, **marker.kwargs)
            except AssertionError as error:
                pytest.fail(str(error), pytrace=False)  # no line of the test has run yet that a traceback could show
        elif "mixbench" not in getattr(item, "fixturenames", ()):
            pytest.fail(
                "the mixbench marker names no model, and the test doesn't take the mixbench fixture: nothing is checked"
            )
