"""Writes the table of models in the documentation: ``python -m tests.models``.

Every model type of the causal mapping is built and tried once. The exit status is 1 if a type that
the page lists as verified no longer is, or if too few are.
"""

import sys
import warnings

from transformers.utils import logging

from tests.models.table import PAGE, WANTED, every_row, page


def main() -> int:
    """Write the page and say what changed."""
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = every_row()
    PAGE.write_text(page(rows), encoding="utf-8")
    verified = [row for row in rows if row.outcome == "verified"]
    listed = before.partition("## Refused")[0]
    lost = [
        row.model_type
        for row in rows
        if row.outcome != "verified" and f"| `{row.model_type}` |" in listed
    ]
    sys.stdout.write(f"{len(verified)} of {len(rows)} model types verified, see {PAGE}\n")
    sys.stdout.write(f"no longer verified: {', '.join(lost)}\n" if lost else "")
    return int(bool(lost) or len(verified) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
