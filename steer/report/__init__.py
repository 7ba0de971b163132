"""Reports: what was measured, on one page that holds its own pictures.

`report(model, what, data)` measures everything; `Report.of(choice, sweep, …)` shows what is there.
"""

from steer.report.measure import report
from steer.report.page import Report
from steer.report.sections.examples import Examples, answered
from steer.report.sections.provenance import Setup, vector_fingerprint
from steer.report.sections.registry import Section
from steer.report.sections.side_effects import Cost, Costs, costs_of

__all__ = [
    "Cost",
    "Costs",
    "Examples",
    "Report",
    "Section",
    "Setup",
    "answered",
    "costs_of",
    "report",
    "vector_fingerprint",
]
