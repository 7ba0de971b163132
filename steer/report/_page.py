"""A report: one page that holds everything it needs."""

import os
from dataclasses import dataclass
from pathlib import Path

from steer.errors import FileError, SelectionError
from steer.report._html import text
from steer.report._sections.registry import Section, sections_of
from steer.report._style import STYLE
from steer.store import path_of, write_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """Sections on one page, with their pictures in it; nothing is fetched from outside.

    Args:
        title: Its heading.
        sections: Its parts, in order.

    Raises:
        SelectionError: There is no section.
    """

    title: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        if not self.sections:
            raise SelectionError(
                "a report needs at least one section",
                found="none",
                expected="results to show",
                do="Report.of(choice, sweep, baselines)",
            )

    @classmethod
    def of(cls, *results: object, title: str = "Steering report") -> "Report":
        """Return a report of results that are there already.

        Args:
            *results: What `sweep`, `off_target`, `select`, `baselines`, `reliability`, … returned,
                in the order wanted; several of one kind as a mapping by name.
            title: Its heading.

        Raises:
            SelectionError: No results, or one that cannot be shown.
        """
        return cls(title, tuple(part for result in results for part in sections_of(result)))

    @property
    def html(self) -> str:
        """The whole page."""
        return (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
            f"<meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">"
            "<meta name='viewport' content='width=device-width,initial-scale=1'>"
            "<meta name='color-scheme' content='light dark'>"
            f"<link rel='icon' href='data:,'><title>{text(self.title)}</title>"
            "<style>body{margin:0}@media screen and (prefers-color-scheme:dark)"
            f"{{body{{background:#161616}}}}</style></head><body>{self._repr_html_()}</body></html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, atomically.

        Args:
            path: Where to; missing folders are made.

        Returns:
            The file.

        Raises:
            FileError: The file cannot be written.
        """
        file = path_of(path, FileError)
        write_text(file, self.html, FileError, parents=True)
        return file

    def _repr_html_(self) -> str:
        links = " · ".join(
            f"<a href='#section-{k}'>{text(part.title)}</a>" for k, part in enumerate(self.sections)
        )
        body = "".join(
            f"<section><h2 id='section-{k}'>{text(part.title)}</h2>{part.html}</section>"
            for k, part in enumerate(self.sections)
        )
        return (
            f"<style>{STYLE}</style><div class='steer-report'><h1>{text(self.title)}</h1>"
            f"<nav>{links}</nav>{body}</div>"
        )

    def __repr__(self) -> str:
        names = ", ".join(part.title for part in self.sections)
        return f"Report({self.title!r}: {names})"
