"""``customBiggerIsBetter`` of github-action-benchmark: metrics of which more is better, such as a signal-to-noise ratio."""

from . import Format
from .smaller_is_better import array

FORMAT = Format(".bigger.json", "customBiggerIsBetter of github-action-benchmark", lambda run: array(run, "higher"))
