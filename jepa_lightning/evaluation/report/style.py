"""The style sheet of a report's page, for light and dark screens; plots and pictures lie on white in both."""

STYLE = """
:root { --ink: #222; --page: #fff; --faint: #ddd; --band: #f5f6f8; --grey: #5a5f66; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e8; --page: #16181b; --faint: #3a3e44; --band: #1f2226; --grey: #a3a9b0; }
}
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Arial, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 1.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .8rem; padding-bottom: .25rem; border-bottom: 1px solid var(--faint); }
h1, h2, h3, th, td, figcaption, li { overflow-wrap: anywhere; }
.notes { color: var(--grey); }
.wide { overflow-x: auto; margin: 0 0 1.4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--faint); }
th:first-child { text-align: left; padding-left: .3rem; }
thead th { border-bottom: 2px solid var(--faint); color: var(--grey); }
tbody tr:hover { background: var(--band); }
th[scope=row] { font-weight: 500; min-width: 6rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; margin-bottom: 1.2rem; }
figure { margin: 0; padding: .7rem; background: #fff; color: #222; border: 1px solid var(--faint); border-radius: 6px; }
figcaption { font-weight: 600; padding-bottom: .4rem; }
.plot { position: relative; }
.plot img { display: block; max-width: 100%; height: auto; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
circle { fill: transparent; }
g > text { display: none; pointer-events: none; font: 600 9px system-ui, Arial, sans-serif; fill: #111;
  stroke: #fff; stroke-width: 3px; stroke-linejoin: round; paint-order: stroke; }
text.l { text-anchor: end; }
g:hover > circle { stroke: #111; stroke-width: 1.2px; }
g:hover > text { display: block; }
.query { display: flex; gap: 1.2rem; align-items: center; padding: .8rem 0; border-bottom: 1px solid var(--faint);
  overflow-x: auto; }
.query > .sample { width: 9rem; flex: none; }
.strip th, .strip td { border: 0; padding: .15rem .4rem; vertical-align: top; }
.strip th { vertical-align: middle; text-align: left; }
.strip tr:hover { background: none; }
.sample { font-size: .78rem; line-height: 1.25; text-align: center; color: var(--grey); overflow-wrap: anywhere; }
.sample img { display: block; margin: 0 auto .15rem; max-width: 9rem; max-height: 96px; background: #fff;
  border: 3px solid var(--faint); border-radius: 3px; }
.sample img.same { border-color: #009e73; }
.sample img.other { border-color: #e69f00; border-style: dashed; }
pre { background: var(--band); padding: .8rem; overflow-x: auto; font-size: .85rem; }
"""
