"""What a person looks at: a run, or an evaluation, as one offline HTML page."""

from vitral.report.gallery import Example, examples
from vitral.report.page import write_evaluation_report, write_report
from vitral.report.rerender import write_again

__all__ = [
    "Example",
    "examples",
    "write_again",
    "write_evaluation_report",
    "write_report",
]
