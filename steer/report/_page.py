"""A report: one page that holds everything it needs."""

import os
from dataclasses import dataclass
from pathlib import Path

from steer.errors import FileError, SelectionError
from steer.report._sections import Section, sections_of
from steer.show._html import STYLE, page_html
from steer.show._markup import escaped
from steer.store import path_of, write_text

_PAPER = """
.steer-report{--ink:#1b1b1b;--soft:#5c5c5c;--line:#d5d5d5;--paper:#ffffff;color:var(--ink);
background:var(--paper);font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:0 auto;
padding:1rem 1.5rem}
@media screen and (prefers-color-scheme:dark){.steer-report{--ink:#ececec;--soft:#b4b4b4;
--line:#444;--paper:#161616}}
.steer-report h1{font-size:1.7rem;margin:.5rem 0}
.steer-report h2{font-size:1.25rem;margin:2rem 0 .3rem;border-bottom:1px solid var(--line)}
.steer-report h3{font-size:1rem;margin:1.2rem 0 .2rem}
.steer-report nav{color:var(--soft);font-size:.9rem}
.steer-report a{color:inherit}
.steer-report .steer-card,.steer-report .steer-card table.steer-rows,.steer-report .steer-note,
.steer-report figcaption,.steer-report summary{font-size:14px}
.steer-report .steer-pictures figure>svg{zoom:1.3}
.steer-report .steer-hollow{fill:var(--paper)}
.steer-report .steer-card table.steer-rows tr>*{vertical-align:top}
@media print{.steer-report{max-width:none;padding:0;font-size:11px}
.steer-report h2{break-after:avoid}.steer-report .steer-card{overflow:visible}
.steer-report tr,.steer-report figure{break-inside:avoid}
.steer-report nav,.steer-report details{display:none}}
"""
_DARK = "body{margin:0}@media screen and (prefers-color-scheme:dark){body{background:#161616}}"


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
        return page_html(self.title, self._repr_html_(), _DARK)

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
        named = [(f"section-{k}", escaped(part.title)) for k, part in enumerate(self.sections)]
        links = " · ".join(f"<a href='#{at}'>{title}</a>" for at, title in named)
        body = "".join(
            f"<section><h2 id='{at}'>{title}</h2>{part.html}</section>"
            for (at, title), part in zip(named, self.sections, strict=True)
        )
        head = f"<h1>{escaped(self.title)}</h1><nav>{links}</nav>"
        style = f"<style>{STYLE}{_PAPER}</style>"
        return f"{style}<div class='steer-report'>{head}{body}</div>"

    def __repr__(self) -> str:
        names = ", ".join(part.title for part in self.sections)
        return f"Report({self.title!r}: {names})"
