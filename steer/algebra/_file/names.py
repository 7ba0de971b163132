"""Which names a file can have that is written for a domain."""

from pathlib import Path

from steer.errors import CompositionError


def check_file_name(domain: str) -> None:
    """Refuse a domain's name that would write elsewhere than into the folder asked for."""
    if Path(domain).name != domain or domain == "..":
        raise CompositionError(
            "this domain's name cannot be a part of a file name",
            found=repr(domain),
            expected="a name without / and not ..",
            do="rename the domain, or save its vector alone under a name of your choice",
        )
