"""The three forms of a value, and what stands in them."""

import io
import xml.etree.ElementTree as ET
from typing import Any

from rich.console import Console

SVG = "{http://www.w3.org/2000/svg}"
_PLAIN = (
    "div style table thead tbody tr th td figure figcaption p details summary span "
    "svg line polyline polygon circle rect title"
)
_DRAWN = "svg rect line circle polyline polygon text title"
ALLOWED = {*_PLAIN.split(" "), *(f"{SVG}{name}" for name in _DRAWN.split(" "))}


def terminal(value: Any, width: int = 80) -> str:
    """What `rich.print` prints, without colours."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(value)
    return out.getvalue()


def html_of(value: Any) -> str:
    """The HTML, of which is checked that it is well-formed and whole in itself."""
    html = str(value._repr_html_())
    root = ET.fromstring(html)
    for element in root.iter():
        assert element.tag in ALLOWED, element.tag
        for name, said in element.attrib.items():
            assert not name.startswith("on"), name
            assert name not in ("id", "href", "src"), name
            assert "url(" not in said
    style = root.find("style")
    assert style is not None
    assert "url(" not in str(style.text)
    assert "#" not in str(style.text), "no fixed colour: the page's own are taken"
    style.text = ""
    return ET.tostring(root, encoding="unicode").replace("ns0:", "")


def html_text(value: Any) -> str:
    """What is read on the page."""
    html_of(value)
    root = ET.fromstring(value._repr_html_())
    return " ".join(text for text in root.itertext() if not text.startswith("\n.steer"))


def bars(value: Any) -> list[list[ET.Element]]:
    """The upright bars of each picture."""
    root = ET.fromstring(html_of(value).replace(" xmlns:ns0=", " data-was=").replace("ns0:", ""))
    return [picture.findall(".//rect") for picture in root.findall(".//figure/svg")]
