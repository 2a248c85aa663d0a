"""The frame of the report: style, light and dark. No script, no font, no image from elsewhere."""

from __future__ import annotations

from html import escape

LIGHT = {
    "paper": "#fcfcfb", "ink": "#1a1a19", "dim": "#63625e", "rule": "#e4e3df", "card": "#f4f3f0",
    "one": "#2a6fd6", "two": "#c2571a", "good": "#1f7a3d", "bad": "#b3261e",
}  # fmt: skip
PLOTS = """svg text { fill: var(--dim); font: 11px system-ui, sans-serif } svg .told { fill: var(--ink); font-weight: 600;
  paint-order: stroke; stroke: var(--paper); stroke-width: 3px }
.grid { stroke: var(--rule) } .axis { stroke: var(--dim) } .mark { stroke: var(--ink); stroke-dasharray: 4 3; opacity: .7 }
"""
_VARIABLES = " ".join(f"--{name}: {colour};" for name, colour in LIGHT.items())
_STYLE = (
    f":root {{ color-scheme: light dark; {_VARIABLES} }}"
    """
@media (prefers-color-scheme: dark) { :root { --paper: #191918; --ink: #f1f0ec; --dim: #a5a49e; --rule: #383734;
  --card: #242422; --one: #6aa5f5; --two: #e58a52; --good: #63c083; --bad: #f2857d; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1120px; padding: 28px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 } h2 { font-size: 18px; margin: 32px 0 10px } .dim { color: var(--dim); margin: 4px 0 16px }
.verdict { padding: 10px 14px; border-radius: 8px; background: var(--card); border-left: 4px solid var(--good) }
.verdict.bad { border-color: var(--bad) } .verdict b { margin-right: 8px; color: var(--good) }
.verdict.bad b, .no { color: var(--bad) }
.verdict ul { margin: 4px 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 16px 0 }
.tiles div { background: var(--card); border-radius: 8px; padding: 10px 14px } .tiles strong { display: block; font-size: 21px;
  font-weight: 600 }
small { color: var(--dim); font-size: 12px } td small { display: block; font-size: 11px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 14px 24px; margin: 12px 0 }
figure { margin: 0 } figcaption { font-size: 13px; margin-bottom: 2px } svg { width: 100%; height: auto; display: block }
"""
    + PLOTS
    + """.bar { fill: var(--one) } .key { margin-left: 14px; color: var(--dim) } .key i { display: inline-block; width: 10px;
  height: 10px; border-radius: 2px; margin-right: 5px }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13px;
  font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule); vertical-align: top }
th { color: var(--dim); font-weight: 500 } th:first-child, td:first-child { text-align: left; white-space: nowrap }
.words th, .words td { text-align: left }
details { margin: 14px 0; border-top: 1px solid var(--rule); padding-top: 10px } summary { cursor: pointer; font-weight: 600 }
pre { background: var(--card); padding: 10px; border-radius: 8px; white-space: pre-wrap; font-size: 12px }
"""
)


def page(title: str, body: str) -> str:
    """A whole page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
