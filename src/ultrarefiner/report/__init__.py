"""One self-contained HTML file that shows what a refinement run did, to whom, and how well."""

from ultrarefiner.report.cases import CaseImages, ReportCase
from ultrarefiner.report.page import render_report

__all__ = ["CaseImages", "ReportCase", "render_report"]
