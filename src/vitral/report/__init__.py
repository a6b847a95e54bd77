"""The report: a run, or an evaluation, as one offline HTML page."""

from vitral.report.gallery import Example, examples
from vitral.report.page import write_evaluation_report, write_report
from vitral.report.rerender import rerender

__all__ = [
    "Example",
    "examples",
    "rerender",
    "write_evaluation_report",
    "write_report",
]
