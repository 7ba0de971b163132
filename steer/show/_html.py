"""A card as HTML that is whole in itself: no script, no address, no id, and no colour of a page.

Text has the colour of the page around it, lines are half transparent, and the hues of bars and
curves are told apart on white and on black, also without colour vision. So a card looks right in a
light and in a dark notebook, and any number of them stand on one page.
"""

from steer.show._card import Bar, Card, Cell, Cells, Table
from steer.show._markup import text
from steer.show._svg import bar_svg, picture_svg

_STYLE = """
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
.steer-card table.steer-rows thead th{opacity:.7;border-bottom:1px solid rgba(128,128,128,.5)}
.steer-card table.steer-facts th.steer-words{opacity:.7;white-space:nowrap}
.steer-card table.steer-facts td.steer-words{max-width:60em}
.steer-card .steer-pictures{display:flex;flex-wrap:wrap;gap:.2em 2em;margin:.2em 0}
.steer-card figure{margin:.2em 0;max-width:345px}
.steer-card figcaption,.steer-card summary,.steer-card .steer-note{font-size:12px;opacity:.75;
margin:.1em 0}
.steer-card summary{cursor:pointer}
.steer-card svg{display:block;overflow:visible}
.steer-card .steer-key{white-space:nowrap;margin-right:.8em}
.steer-card .steer-key svg{display:inline-block;vertical-align:middle}
.steer-card td svg{display:inline-block;vertical-align:middle}
.steer-card svg text{fill:currentColor;font:10px sans-serif}
"""


def card_html(card: Card) -> str:
    """Return a card as HTML, which is also well-formed XML.

    Args:
        card: The card.
    """
    facts = "".join(
        f"<tr><th class='steer-words' scope='row'>{text(name)}</th>"
        f"<td class='steer-words'>{text(value)}</td></tr>"
        for name, value in card.facts
    )
    parts = [f"<div class='steer-title'>{text(card.title)}</div>"]
    if facts:
        parts.append(f"<table class='steer-rows steer-facts'><tbody>{facts}</tbody></table>")
    pictures = [picture_svg(b) for b in card.blocks if not isinstance(b, Table)]
    if drawn := "".join(pictures):
        parts.append(f"<div class='steer-pictures'>{drawn}</div>")
    parts += [table_html(block) for block in card.blocks if isinstance(block, Table)]
    parts += [f"<p class='steer-note'>{text(note)}</p>" for note in card.notes]
    return f"<div class='steer-card'><style>{_STYLE}</style>{''.join(parts)}</div>"


def table_html(table: Table) -> str:
    """Return a table as HTML, with the rows that are folded up below it.

    Args:
        table: The table.
    """
    if not table.rows and not table.rest:
        return ""
    head = "".join(
        f"<th scope='col'{_side(k, table.words)}>{text(name)}</th>"
        for k, name in enumerate(table.head)
    )
    head = f"<thead><tr>{head}</tr></thead>"
    caption = f"<div class='steer-note'>{text(table.caption)}</div>" if table.caption else ""
    whole = caption + _rows(head, table.rows, table.words) if table.rows else ""
    if table.rest:
        body = _rows(head, table.rest, table.words)
        said = (
            f"{len(table.rest)} more rows" if table.rows else f"{len(table.rest)} {table.caption}"
        )
        left = f", and {table.left_out} that are not listed" if table.left_out else ""
        whole += f"<details><summary>{text(said)}{left}</summary>{body}</details>"
    elif table.left_out:
        whole += f"<p class='steer-note'>… {table.left_out} more rows</p>"
    return whole


def _rows(head: str, rows: tuple[Cells, ...], words: int) -> str:
    body = "".join(
        "<tr>" + "".join(_cell(cell, k, words) for k, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table class='steer-rows'>{head}<tbody>{body}</tbody></table>"


def _cell(cell: Cell, column: int, words: int) -> str:
    if isinstance(cell, Bar):
        return f"<td class='steer-words'>{bar_svg(cell)}</td>"
    return f"<td{_side(column, words)}>{text(cell)}</td>"


def _side(column: int, words: int) -> str:
    return " class='steer-words'" if column < words else ""
