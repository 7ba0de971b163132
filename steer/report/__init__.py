"""Reports: what was measured, on one page that holds its own pictures.

`report(model, what, data)` measures everything; `Report.of(choice, sweep, …)` shows what is there.
"""

from steer.report._costs import Cost, Costs
from steer.report._examples import Examples
from steer.report._measure import report
from steer.report._page import Report
from steer.report._sections import Section
from steer.report._setup import Setup, vector_fingerprint

__all__ = [
    "Cost",
    "Costs",
    "Examples",
    "Report",
    "Section",
    "Setup",
    "report",
    "vector_fingerprint",
]
