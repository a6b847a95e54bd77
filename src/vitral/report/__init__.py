"""What a person looks at: a run, or an evaluation, as one offline HTML page."""

from vitral.report.again import write_again
from vitral.report.gallery import Example, examples
from vitral.report.page import write_evaluation_report, write_report

__all__ = [
    "Example",
    "examples",
    "write_again",
    "write_evaluation_report",
    "write_report",
]
