"""A steered model beside what it is to be held against."""

from steer.measure import Baselines
from steer.report._charts.intervals import intervals
from steer.report._html import figure, interval, paragraph, table


def baselines(result: Baselines) -> str:
    """Return every condition with its interval, and what steering gains over it, pair by pair.

    Args:
        result: What `steer.measure.baselines` returned.
    """
    shown = [
        {
            "condition": row["condition"],
            "measure": row["measure"],
            "value": interval(row["value"], (row["low"], row["high"])),
            "gain of steering": "–"
            if row["gain"] is None
            else interval(row["gain"], (row["gain low"], row["gain high"])),
            "n": row["n"],
        }
        for row in result.rows
    ]
    values = {name: (found.value, *found.interval) for name, found in result.preferences.items()}
    verdict = (
        "The gains over the unsteered model and every random direction lie above 0."
        if result.beats_unsteered_and_random
        else "Not every gain over the unsteered model and random directions lies above 0."
    )
    picture = intervals(values, "preference accuracy", share=True)
    return (
        figure(picture, "Preference accuracy with its 95% interval")
        + paragraph(verdict)
        + table(shown)
    )
