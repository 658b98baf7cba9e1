"""Pages of HTML that stand alone: no script, no other file, light and dark, wide and narrow."""

import base64
import html
from collections.abc import Sequence
from typing import Any

# A page with more than this in it is no page to send by mail.
MOST_BYTES = 1_000_000
# In every page that is written here: those are replaced without asking.
MADE_BY = "<meta name='generator' content='kerasgreedy'>"
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#57606a;--line:#d0d7de;--ground:#fff;--raised:#f6f8fa;
--c0:#0b62b8;--c1:#c2410c;--c2:#17803d;--c3:#8b3fc4;--c4:#946200;--c5:#0f766e}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9aa4af;--line:#3d444d;--ground:#0d1117;--raised:#161b22;
--c0:#6cb6ff;--c1:#ff9f66;--c2:#6bd389;--c3:#d2a8ff;--c4:#e3b341;--c5:#5fd4c8}}
*{box-sizing:border-box}body{margin:0 auto;max-width:66rem;padding:1rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;
overflow-wrap:anywhere}h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.15rem;margin:1.6em 0 .4em;
border-bottom:1px solid var(--line)}p,li{max-width:46rem}.faint,figcaption,caption{color:var(--faint);font-size:.875rem}
.wide{overflow-x:auto;margin:.6em 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
caption{text-align:left;padding:.2em 0}th,td{padding:.25em .6em;border-bottom:1px solid var(--line);text-align:right;
white-space:nowrap}
th:first-child,td:first-child,td.words,th.words{text-align:left}th{color:var(--faint);font-weight:600}
.matrix td,.matrix th{padding:.3em .45em;text-align:center;border:1px solid var(--line)}.matrix th:first-child{text-align:right}
.matrix thead th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;max-height:9rem}
.matrix thead th:first-child{writing-mode:horizontal-tb;transform:none}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem}figure{margin:0}svg{width:100%;height:auto}
svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .axis{stroke:var(--faint)}svg .grid{stroke:var(--line)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr));gap:.8rem}.card{background:var(--raised);
border:1px solid var(--line);border-radius:6px;padding:.4rem;font-size:.85rem;overflow-wrap:anywhere}
.card img{width:100%;height:auto;display:block;border-radius:3px}.wrong{color:var(--c1)}.right{color:var(--c2)}
pre,code{font:.85rem/1.45 ui-monospace,monospace}pre{background:var(--raised);border:1px solid var(--line);border-radius:6px;
padding:.6rem;overflow-x:auto}summary{cursor:pointer;margin:.5em 0}
"""


def escape(text: Any) -> str:
    """Text as it may stand in HTML, in attributes too."""
    return html.escape(str(text), quote=True)


def page(title: str, body: Sequence[str]) -> str:
    """A whole page."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"{MADE_BY}<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", words: Sequence[int] = ()) -> str:
    """A table; the first column and those named in `words` stand left."""
    marks = [" class='words'" if index in words else "" for index in range(len(header))]
    head = "".join(f"<th{mark}>{escape(name)}</th>" for name, mark in zip(header, marks, strict=True))
    lines = [
        "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    ]
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class='wide'><table>{above}<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Images by label (row) and answer (column), the darker the larger the share of the row."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for name, row in zip(names, counts, strict=True):
        total = max(sum(row), 1)
        cells = "".join(f"<td style='background:rgba(56,139,253,{0.85 * value / total:.2f})'>{value or ''}</td>" for value in row)
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return (
        "<div class='wide'><table class='matrix'><caption>rows are labels, columns answers</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def card(jpeg: bytes, lines: Sequence[tuple[str, str]], alternative: str) -> str:
    """A picture with lines of text (class of CSS, text) under it."""
    texts = "".join(f"<div class='{kind}'>{escape(text)}</div>" for kind, text in lines)
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return f"<div class='card'><img alt='{escape(alternative)}' src='{source}'>{texts}</div>"


def cards(parts: Sequence[str]) -> str:
    """Cards beside each other."""
    return f"<div class='cards'>{''.join(parts)}</div>"


def folded(title: str, body: str) -> str:
    """What is shown on a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"
