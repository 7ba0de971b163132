"""How the page looks: on a light and a dark screen, and on paper.

Every rule is below `.steer-report`, so that a page that holds a report keeps its own looks.
"""

from steer.view._look import OKABE_ITO

_BRIGHTER = ("#45a8e6", "#f0803c", "#2fc79b", "#e29cc4", "#f0b73c", "#86cdf5", "#ffffff")


def _colours(palette: tuple[str, ...]) -> str:
    return "".join(f"--c{k}:{colour};" for k, colour in enumerate(palette))


def _classes() -> str:
    return "".join(
        f".steer-report .c{k}{{stroke:var(--c{k});fill:var(--c{k})}}" for k in range(len(OKABE_ITO))
    )


STYLE = (
    f"""
.steer-report{{--ink:#1b1b1b;--soft:#5c5c5c;--line:#d5d5d5;--paper:#ffffff;{_colours(OKABE_ITO)}
color:var(--ink);background:var(--paper);font:16px/1.5 system-ui,sans-serif;
max-width:76rem;margin:0 auto;padding:1rem 1.5rem}}
@media screen and (prefers-color-scheme:dark){{.steer-report{{--ink:#ececec;--soft:#b4b4b4;
--line:#444;--paper:#161616;{_colours(_BRIGHTER)}}}}}
"""
    + _classes()
    + """
.steer-report h1{font-size:1.7rem;margin:.5rem 0}
.steer-report h2{font-size:1.25rem;margin:2rem 0 .3rem;border-bottom:1px solid var(--line)}
.steer-report h3{font-size:1rem;margin:1.2rem 0 .2rem}
.steer-report nav{color:var(--soft);font-size:.9rem}
.steer-report a{color:inherit}
.steer-report .figures{display:flex;flex-wrap:wrap;gap:1rem 2rem}
.steer-report figure{margin:.6rem 0;flex:0 1 35rem;min-width:0;break-inside:avoid}
.steer-report figcaption,.steer-report summary{color:var(--soft);font-size:.85rem}
.steer-report svg{display:block;width:100%;height:auto;color:var(--ink)}
.steer-report svg text{fill:currentColor;stroke:none;font-family:system-ui,sans-serif}
.steer-report svg .soft{color:var(--soft)}
.steer-report svg .line{fill:none}
.steer-report svg .band{stroke:none;fill-opacity:.18}
.steer-report svg .hollow{fill:var(--paper)}
.steer-report .wide{overflow-x:auto}
.steer-report table{border-collapse:collapse;font-size:.88rem;margin:.5rem 0}
.steer-report th,.steer-report td{border-bottom:1px solid var(--line);padding:.25rem .7rem .25rem 0;
text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:break-word;color:var(--ink);
background:none}
.steer-report td{max-width:24rem;min-width:3rem}
.steer-report .number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
@media print{.steer-report{max-width:none;padding:0;font-size:11px}
.steer-report h2{break-after:avoid}.steer-report .wide{overflow:visible}
.steer-report tr{break-inside:avoid}.steer-report nav,.steer-report details{display:none}}
"""
)
