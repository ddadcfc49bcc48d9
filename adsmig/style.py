"""How pages look: one style sheet, light and dark, for desks, phones and paper."""

from __future__ import annotations

STYLE = """
:root {
  --paper: #f5f6f8; --card: #fff; --ink: #1b2330; --muted: #5c6778; --grid: #e4e8ee;
  --line: #dfe4ea; --shade: #0002;
  --c1: #2d6cdf; --c2: #d9822b; --c3: #2e9e6b; --c4: #cc4338; --c5: #7d5fc4;
  --c6: #1593a5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11151b; --card: #1a2029; --ink: #e6eaf0; --muted: #9aa6b6; --grid: #2a323d;
    --line: #2a323d; --shade: #0009;
    --c1: #5b93f5; --c2: #e8a154; --c3: #4cbb87; --c4: #ea6a5f; --c5: #a48be0;
    --c6: #3bb3c4;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 78rem; padding: 2rem 1.25rem 3rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
  "Liberation Sans", Arial, sans-serif; font-variant-numeric: tabular-nums;
}
h1 { margin: 0 0 1rem; font-size: 1.6rem; line-height: 1.25; font-weight: 650;
  letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 .9rem; font-size: 1rem; font-weight: 650; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0 0 1.75rem; }
.facts div { min-width: 0; }
dt { color: var(--muted); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.tiles, .cards { display: grid; gap: 1rem; margin: 0; padding: 0; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(11.25rem, 1fr)); list-style: none;
  margin-bottom: 1rem; }
.cards { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.tile, .card { min-width: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.tile { padding: .85rem 1rem; }
.tile span { display: block; color: var(--muted); font-size: .8rem; overflow-wrap: anywhere; }
.tile strong { display: block; font-size: 1.2rem; line-height: 1.5; white-space: nowrap;
  font-weight: 650; letter-spacing: -.01em; }
.tile.bad strong { color: var(--c4); }
.card { padding: 1.1rem 1.25rem 1.2rem; }
.wide { grid-column: 1 / -1; }
.wide > .body:has(.plot) { display: grid; gap: 0 2.5rem;
  grid-template-columns: minmax(0, 28rem) minmax(0, 1fr); align-items: start; }
.wide > .body:has(.plot) :is(th, td):not(:last-child) { padding-right: .75rem; }
.wide > .body:has(.plot) details { margin-top: 0; }
.plot svg { display: block; width: 100%; max-width: 35rem; height: auto; overflow: visible;
  stroke-linejoin: round; }
.plot text { font-family: inherit; }
details { margin-top: .9rem; }
summary { color: var(--muted); font-size: .85rem; cursor: pointer; width: max-content; }
details .scroll { margin-top: .6rem; }
/* A shade at the side that there is more at: the first two layers move along, and hide it. */
.scroll { overflow: auto; background:
  linear-gradient(90deg, var(--card) 50%, transparent) 0 0 / 2rem 100% no-repeat local,
  linear-gradient(270deg, var(--card) 50%, transparent) 100% 0 / 2rem 100% no-repeat local,
  linear-gradient(90deg, var(--shade), transparent) 0 0 / .8rem 100% no-repeat scroll,
  linear-gradient(270deg, var(--shade), transparent) 100% 0 / .8rem 100% no-repeat scroll; }
.long { max-height: 32rem; }
.long thead th { background: var(--card); }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--c1); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .32rem 1rem .32rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { position: sticky; top: 0; color: var(--muted);
  font-size: .8rem; white-space: nowrap; }
.k { overflow-wrap: anywhere; min-width: 11rem; }
.n, #history :is(th, td) { white-space: nowrap; }
.n { text-align: right; }
.notes p { margin: .6rem 0 0; color: var(--muted); font-size: .85rem; overflow-wrap: anywhere; }
footer { margin-top: 1.5rem; color: var(--muted); font-size: .8rem; }
@media (max-width: 60rem) {
  .wide > .body:has(.plot) { display: block; }
  .wide > .body:has(.plot) details { margin-top: .9rem; }
}
@media (max-width: 40rem) {
  body { padding: 1.25rem .75rem 2rem; }
  h1 { font-size: 1.3rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: .6rem; }
  .tile { padding: .7rem .8rem; }
  .tile strong { font-size: 1.1rem; }
  th, td { padding-right: .75rem; }
  .k { min-width: 8.5rem; }
  .plot text { font-size: 15.5px !important; }
  .card { padding: 1rem .9rem; }
}
@media print {
  body { background: none; max-width: none; padding: 0; }
  .card, .tile { break-inside: avoid; }
  .long { max-height: none; }
}
"""
