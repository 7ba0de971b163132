"""Cards as HTML: without scripts, addresses, ids or page colours.

Text has the colour of the page around it, lines are half transparent, and the palette reads on
white and on black. So a card looks right in a light and in a dark notebook, and any number of cards
share a page.
"""

from collections.abc import Sequence

from steer.show._card import Bar, Card, Cell, Cells, Table
from steer.show._chart import Spans
from steer.show._look import hexadecimal, ink
from steer.show._markup import escaped, text
from steer.show._svg import bar_svg, chart_svg

STYLE = """
.steer-card{font-size:13px;line-height:1.45;overflow-x:auto;color:inherit}
.steer-card .steer-title{font-weight:600;margin:.2em 0 .4em;overflow-wrap:anywhere}
.steer-card table.steer-rows{border-collapse:collapse;border:0;margin:.3em 0 .6em;font-size:12px;
table-layout:auto;color:inherit}
.steer-card table.steer-rows tr,.steer-card table.steer-rows tbody tr:nth-child(n){background:none}
.steer-card table.steer-rows tr>*{border:0;padding:.12em 1.1em .12em 0;text-align:right;
vertical-align:baseline;white-space:nowrap;font-weight:400;color:inherit;max-width:none;
font-variant-numeric:tabular-nums}
.steer-card table.steer-rows tr>.steer-words{text-align:left;white-space:pre-wrap;
overflow-wrap:anywhere;min-width:3em;max-width:30em}
.steer-card table.steer-rows thead th{opacity:.75;border-bottom:1px solid rgba(128,128,128,.5)}
.steer-card table.steer-facts th.steer-words{opacity:.75;white-space:nowrap}
.steer-card table.steer-facts td.steer-words{max-width:60em}
.steer-card .steer-pictures{display:flex;flex-wrap:wrap;gap:.4em 2em;margin:.2em 0}
.steer-card figure{margin:.2em 0;max-width:100%}
.steer-card figcaption,.steer-card summary,.steer-card .steer-note{font-size:12px;opacity:.8;
margin:.1em 0;max-width:44em}
.steer-card figcaption{max-width:34em}
.steer-card summary{cursor:pointer}
.steer-card svg{display:block;overflow:visible;max-width:100%;height:auto}
.steer-card .steer-key{white-space:nowrap;margin-right:.8em}
.steer-card .steer-key svg,.steer-card td svg{display:inline-block;vertical-align:middle}
.steer-card svg text{fill:currentColor;font:10px sans-serif}
.steer-card .steer-spans{line-height:1.9;font-family:monospace}
"""


def card_html(card: Card) -> str:
    """Return a card as HTML, which is also well-formed XML.

    Args:
        card: The card.
    """
    title = f"<div class='steer-title'>{text(card.title)}</div>"
    return f"<div class='steer-card'><style>{STYLE}</style>{title}{card_body(card)}</div>"


def card_body(card: Card, *, whole: bool = False) -> str:
    """Return what is below the title of a card; with `whole`, long texts are not cut."""
    cut = escaped if whole else text
    parts = []
    if card.facts:
        facts = "".join(
            f"<tr><th class='steer-words' scope='row'>{text(name)}</th>"
            f"<td class='steer-words'>{cut(value)}</td></tr>"
            for name, value in card.facts
        )
        parts.append(f"<table class='steer-rows steer-facts'><tbody>{facts}</tbody></table>")
    parts += [_spans(block) for block in card.blocks if isinstance(block, Spans)]
    charts = [chart_svg(b) for b in card.blocks if not isinstance(b, Table | Spans)]
    if drawn := "".join(charts):
        parts.append(f"<div class='steer-pictures'>{drawn}</div>")
    parts += [_table(block, whole) for block in card.blocks if isinstance(block, Table)]
    parts += [f"<p class='steer-note'>{cut(note)}</p>" for note in card.notes]
    return "".join(parts)


def page_html(title: str, body: str, style: str) -> str:
    """Return a page that fetches nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{policy}\">"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<link rel='icon' href='data:,'><title>{escaped(title)}</title>"
        f"<style>{style}</style></head><body>{body}</body></html>\n"
    )


def _table(table: Table, whole: bool) -> str:
    """Return a table, with the rows that are folded up below it."""
    if not table.rows and not table.rest:
        return ""
    caption = f"<div class='steer-note'>{text(table.caption)}</div>" if table.caption else ""
    left = f", and {table.left_out} that are not listed" if table.left_out else ""
    if table.folded or not table.rows:
        rows = (*table.rows, *table.rest)
        return _folded(f"{len(rows)} {table.caption or 'rows'}{left}", table, rows, whole)
    found = caption + _rows(table, table.rows, whole)
    if table.rest:
        return found + _folded(f"{len(table.rest)} more rows{left}", table, table.rest, whole)
    return found + (f"<p class='steer-note'>… {table.left_out} more rows</p>" if left else "")


def _folded(said: str, table: Table, rows: Sequence[Cells], whole: bool) -> str:
    return f"<details><summary>{text(said)}</summary>{_rows(table, rows, whole)}</details>"


def _rows(table: Table, rows: Sequence[Cells], whole: bool) -> str:
    head = "".join(
        f"<th scope='col'{_side(k, table.words)}>{text(name)}</th>"
        for k, name in enumerate(table.head)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, k, table.words, whole) for k, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table class='steer-rows'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: Cell, column: int, words: int, whole: bool) -> str:
    if isinstance(cell, Bar):
        return f"<td class='steer-words'>{bar_svg(cell)}</td>"
    said = escaped(cell) if whole else text(cell)
    return f"<td dir='auto'{_side(column, words)}>{said}</td>"


def _side(column: int, words: int) -> str:
    return " class='steer-words'" if column < words else ""


def _spans(block: Spans) -> str:
    """Return coloured text; each piece tells its number when pointed at."""
    parts = []
    for k, (piece, value, colour) in enumerate(
        zip(block.pieces, block.values, block.colours, strict=True)
    ):
        bar = "margin-left:0.8em;border-left:3px solid currentColor;" if k == block.split else ""
        parts.append(
            f"<span title='{value:.4g}' style='{bar}background:{hexadecimal(colour)};"
            f"color:{ink(colour)};padding:1px 2px;margin:1px'>{text(piece)}</span>"
        )
    return f"<div class='steer-spans'>{' '.join(parts)}</div>"
