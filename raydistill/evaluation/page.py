"""What all our HTML pages are made of: one file each, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{policy}<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} h2 {{ margin-top: 2rem; font-size: 1.1rem }} .muted {{ color: #5b6875 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ padding: .35rem .6rem; border-bottom: 1px solid #dde3e9 }}
th {{ text-align: left; font-weight: 600; background: #f4f6f8 }} td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
.wide {{ overflow-x: auto }}
.best {{ color: #2a7f9e; font-weight: 600 }} .worse {{ color: #b3452c; font-weight: 600 }} svg {{ max-width: 100%; height: auto }}
</style></head><body>
<h1>{title}</h1><p class="muted">{description}</p>
{body}
</body></html>
"""
# Should a label ever slip through as HTML: nothing runs, and nothing is fetched.
INERT = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
"""


def page(title: str, description: str, sections: Iterable[str], scripts: bool = False) -> str:
    """A whole page.

    Args:
        title, description: plain text.
        sections: HTML.
        scripts: the sections have some that are to run.
    """
    policy = "" if scripts else INERT
    return PAGE.format(title=escape(title), description=escape(description), body="\n".join(sections), policy=policy)


def bullets(lines: Iterable[str]) -> str:
    """Plain lines as a list."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(heads: list[str], rows: Iterable[list[str]], numbers: frozenset[int] = frozenset()) -> str:
    """Cells are HTML; `numbers` are the columns that stand to the right."""
    lines = "".join(f"<tr>{cells('td', row, numbers)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', heads, numbers)}</tr></thead><tbody>{lines}</tbody></table>"


def cells(tag: str, values: list[str], numbers: frozenset[int]) -> str:
    """One row's."""
    marks = [' class="n"' if i in numbers else "" for i in range(len(values))]
    return "".join(f"<{tag}{mark}>{value}</{tag}>" for mark, value in zip(marks, values, strict=True))


def folded(summary: str, text: str) -> str:
    """Plain text that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"
