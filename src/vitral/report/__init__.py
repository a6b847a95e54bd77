"""What a person looks at: a run as one offline HTML page."""

from vitral.report.gallery import Example, mistakes
from vitral.report.page import write_report

__all__ = ["Example", "mistakes", "write_report"]
