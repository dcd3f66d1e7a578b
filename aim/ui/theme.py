"""How the page looks: its own colours, the system's fonts (nothing is fetched from anywhere), and a
few rules of CSS.
"""

from __future__ import annotations

from gradio import themes
from gradio.themes.utils import colors

_CORAL = colors.Color(
    name="coral",
    c50="#fff5f0",
    c100="#ffe6da",
    c200="#ffcdb8",
    c300="#ffab8a",
    c400="#fb8259",
    c500="#ee6335",
    c600="#d64a1c",
    c700="#b13a15",
    c800="#8c3016",
    c900="#6f2a17",
    c950="#3d140a",
)
_INK = colors.Color(
    name="ink",
    c50="#f6f8f9",
    c100="#edf1f3",
    c200="#dbe2e6",
    c300="#bdc9d0",
    c400="#8fa1ac",
    c500="#677b88",
    c600="#4e616d",
    c700="#3a4a54",
    c800="#24313a",
    c900="#172129",
    c950="#0e161c",
)
_TEAL = colors.Color(
    name="teal",
    c50="#effbfa",
    c100="#d3f4f1",
    c200="#a9e8e4",
    c300="#72d5d0",
    c400="#3bbab6",
    c500="#1f9e9b",
    c600="#167f7f",
    c700="#166566",
    c800="#165152",
    c900="#164344",
    c950="#062829",
)
_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

THEME = themes.Base(
    primary_hue=_CORAL,
    secondary_hue=_TEAL,
    neutral_hue=_INK,
    radius_size="lg",
    font=_SYSTEM_FONTS,
    font_mono=_SYSTEM_MONO,
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_shadow="0 1px 3px rgb(20 35 45 / 0.06)",
    block_label_text_weight="600",
    block_title_text_weight="600",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    # contrast of 4.5 and more on every surface of the page
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    color_accent="*primary_700",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_200",
    button_primary_text_color="white",
    slider_color="*primary_500",
    slider_color_dark="*primary_500",
)

_PICTURE = """
/* The picture: a code that is not drawn yet is a dot on paper, in its place on the 16x16 grid. */
#NAME { --paper: #e9eef0; --dot: #b4c1c9; max-width: 560px; width: 100%; margin: 0 auto; aspect-ratio: 1; }
.dark #NAME { --paper: #1b262e; --dot: #435561; }
#NAME .image-container, #NAME .image-frame, #NAME .image-container > button { width: 100%; height: 100%; }
#NAME .image-container, #NAME .empty {
  background: radial-gradient(circle, var(--dot) 0 2px, transparent 2.6px) 0 0 / 6.25% 6.25% var(--paper);
}
#NAME .empty { width: 100%; height: 100%; max-height: none; aspect-ratio: 1; }
#NAME .empty .icon { display: none; }
#NAME img { width: 100%; height: 100%; object-fit: contain; image-rendering: auto; }
"""

CSS = """
.gradio-container { width: 100%; max-width: 1088px !important; margin: 0 auto !important; }
.aim-head h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0; letter-spacing: -0.01em; }
.aim-head p { margin: 0.25rem 0 0; color: var(--body-text-color-subdued); max-width: 46rem; }

PICTURES
#progress { max-width: 560px; width: 100%; margin: 0 auto; }
#inside-progress { width: 100%; }
#grid { min-height: 16rem; }
.aim-swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid var(--border-color-primary); vertical-align: -0.15em; }
#map img { image-rendering: pixelated; cursor: crosshair; }
.aim-pair { flex-wrap: nowrap; }
#explore-progress { max-width: 560px; width: 100%; margin: 0 auto; }
.aim-flush .html-container, #progress .html-container { padding: 0; }
.aim-bar { height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; }
.aim-bar > div { height: 100%; border-radius: 4px; background: var(--primary-500); transition: width 0.12s linear; }
.aim-done .aim-bar > div { background: var(--secondary-500); }
.aim-failed .aim-bar > div { background: var(--error-icon-color); }
.aim-line { display: flex; justify-content: space-between; gap: 1rem; margin-top: 0.45rem; font-variant-numeric: tabular-nums; }
.aim-line .aim-rate { white-space: nowrap; color: var(--body-text-color-subdued); }
.aim-failed .aim-text { color: var(--error-text-color); }
.tab-container button.selected { color: var(--primary-700); }
.dark .tab-container button.selected { color: var(--primary-300); }
input.subdued { color: var(--neutral-600) !important; }
.dark input.subdued { color: var(--neutral-200) !important; }
.gallery-item, .label { color: var(--body-text-color); }
.aim-narrow { max-width: 560px; width: 100%; margin: 0 auto !important; }
.aim-note, .aim-note p { font-size: 0.86rem; color: var(--body-text-color-subdued); margin: 0; }
.aim-about { max-width: 46rem; }

#branches .grid-wrap { min-height: 0; height: auto; max-height: 26rem; }
#visit .grid-wrap { min-height: 0; height: auto; max-height: 32rem; }
#visit { min-height: 0; }
#visit .grid-container { grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); }
#visit .caption-label, #branches .caption-label {
  position: static; display: block; max-width: none; white-space: normal; font-size: 0.75rem; line-height: 1.25; text-align: left;
  background: none; border: 0; padding: 0.2rem 0.1rem; border-radius: 0;
}
#visit .thumbnail-item { aspect-ratio: auto; height: auto; overflow: visible; display: flex; flex-direction: column; }
#visit .thumbnail-item img { aspect-ratio: 1; height: auto; border-radius: var(--radius-md); }

/* On a narrow screen the picture follows the first buttons; the settings come last. */
@media (max-width: 767px) {
  .tab-container button { padding-inline: 0.5rem !important; font-size: 0.85rem !important; }
  .aim-columns { flex-direction: column; flex-wrap: nowrap; gap: var(--layout-gap); }
  .aim-controls { display: contents !important; }
  .aim-controls > * { order: 3; width: 100%; }
  .aim-controls > .aim-first { order: 1; }
  .aim-result { order: 2; width: 100%; }
  #png, #gif { font-size: 0.85rem; white-space: nowrap; padding-inline: 0.5rem; }
}

/* The race: coral is AiM, teal the Transformer, and names, numbers, shapes and hatching say so, too.
   Gradio rewrites selectors from comma to comma: a list of two with .dark, or :is(), would lose its second. */
.aim-replay, .aim-report { --paper: #e9eef0; --dot: #b4c1c9; --aim: var(--primary-600); --gpt: var(--secondary-600); }
.dark .aim-replay { --paper: #1b262e; --dot: #435561; --aim: var(--primary-400); --gpt: var(--secondary-400); }
.dark .aim-report { --aim: var(--primary-400); --gpt: var(--secondary-400); }
.aim-replay p, .aim-report p, .aim-report h4, .aim-replay figure, .aim-report figure { margin: 0; }
.aim-replay-head { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center; gap: 0.5rem 1rem; }
.aim-replay-head { margin-bottom: 0.75rem; }
.aim-badge { font-weight: 600; }
.aim-pacing { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 1rem; }
.aim-pacing button, .aim-pacing select {
  font: inherit; color: var(--body-text-color); background: var(--button-secondary-background-fill); min-height: 2.2rem;
  border: 1px solid var(--border-color-primary); border-radius: var(--radius-md); padding: 0.2rem 0.7rem; cursor: pointer;
}
.aim-pacing select { appearance: auto; }
.aim-pacing button:hover { background: var(--button-secondary-background-fill-hover); }
.aim-pacing :focus-visible, .aim-table:focus-visible { outline: 2px solid var(--primary-500); outline-offset: 2px; }
.aim-lanes { display: grid; grid-template-columns: 1fr 1fr; gap: 0.9rem; max-width: 740px; margin: 0 auto; }
.aim-lanes canvas { display: block; width: 100%; height: auto; border-radius: var(--radius-md); background: var(--paper); }
.aim-lanes figcaption { margin-bottom: 0.35rem; }
.aim-kind, .aim-arrival, .aim-count { color: var(--body-text-color-subdued); }
.aim-meter { height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; margin-top: 0.5rem; }
.aim-meter > div { height: 100%; width: 0; }
.aim-aim .aim-meter > div, .aim-fill.aim-aim { background: var(--aim); }
.aim-gpt .aim-meter > div, .aim-fill.aim-gpt {
  background: repeating-linear-gradient(135deg, rgb(255 255 255 / 0.35) 0 3px, transparent 3px 7px), var(--gpt);
}
.aim-replay .aim-line { flex-wrap: wrap; gap: 0 1rem; }
.aim-clock { font-size: 1.25rem; font-weight: 600; }
.aim-arrival { min-height: 1.5em; }
.aim-replay .aim-verdict { text-align: center; margin: 0.6rem 0 0; min-height: 1.5em; font-weight: 600; }
@media (prefers-reduced-motion: reduce) { .aim-pacing { display: none; } }

.aim-report { display: flex; flex-direction: column; gap: 0.9rem; }
.aim-caution { border-left: 4px solid var(--primary-500); padding: 0.3rem 0.75rem; background: var(--background-fill-secondary); }
.aim-small { font-size: 0.86rem; color: var(--body-text-color-subdued); }
.aim-bar-grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 0.9rem 2rem; }
.aim-bar-row { display: grid; grid-template-columns: 3.6rem 1fr minmax(8.6rem, auto); align-items: center; gap: 0.6rem; }
.aim-bar-row { margin-top: 0.3rem; }
.aim-bar-name { white-space: nowrap; }
.aim-track { position: relative; height: 18px; background: var(--border-color-primary); border-radius: 3px; }
.aim-fill { position: absolute; inset: 0 auto 0 0; border-radius: 3px; }
.aim-whisker { position: absolute; top: 3px; height: 12px; min-width: 2px; border: solid var(--body-text-color); border-width: 0 2px; }
.aim-whisker::after { content: ""; position: absolute; top: 5px; left: 0; right: 0; height: 2px; background: var(--body-text-color); }
.aim-bar-text { font-variant-numeric: tabular-nums; font-size: 0.86rem; line-height: 1.25; }
.aim-bar-text > * { display: block; white-space: nowrap; }
.aim-bar-text > span { color: var(--body-text-color-subdued); }
.aim-table { overflow-x: auto; }
.aim-table td { white-space: nowrap; }
.aim-report details { margin-top: 0.2rem; }
.aim-report summary { cursor: pointer; }
.aim-report summary:focus-visible { outline: 2px solid var(--primary-500); outline-offset: 2px; }
.aim-verdicts { margin: 0; padding-left: 1.2rem; }
#race-report table, #race-report tr, #scaling-report table, #scaling-report tr, #choice table, #choice tr { border: 0; }
.aim-table table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.aim-table caption { caption-side: bottom; text-align: left; font-size: 0.86rem; padding-top: 0.4rem; }
.aim-table caption { color: var(--body-text-color-subdued); }
.aim-table th, .aim-table td { padding: 0.3rem 0.6rem; border: 0; border-bottom: 1px solid var(--border-color-primary); text-align: right; }
.aim-table th:first-child { text-align: left; font-weight: 400; padding-left: 0; }
.aim-chart-grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 1.2rem 2rem; }
.aim-chart { display: flex; flex-direction: column; justify-content: flex-end; }
.aim-chart svg { width: 100%; height: auto; font-size: 13px; }
.aim-chart svg text { fill: var(--body-text-color-subdued); }
.aim-grid-line { stroke: var(--border-color-primary); stroke-width: 1; }
.aim-stroke { stroke-width: 2; }
.aim-dashed { stroke-dasharray: 4 4; }
.aim-stroke.aim-aim, .aim-mark.aim-aim { stroke: var(--aim); fill: var(--aim); }
.aim-stroke.aim-gpt, .aim-mark.aim-gpt { stroke: var(--gpt); fill: var(--gpt); }
.aim-mark.aim-hollow { fill: var(--background-fill-primary); stroke-width: 1.5; }
.aim-legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; font-size: 0.86rem; }
.aim-legend svg { display: inline; width: 12px; height: 12px; vertical-align: baseline; }
@media (max-width: 500px) {
  .aim-lanes { gap: 0.6rem; }
  .aim-bar-row { grid-template-columns: 3.6rem 1fr; gap: 0.15rem 0.6rem; }
  .aim-bar-row .aim-track { grid-row: 2; grid-column: 1 / -1; }
  .aim-bar-text { text-align: right; }
  .aim-bar-text > * { display: inline; margin-left: 0.5rem; }
  .aim-clock { font-size: 1.05rem; }
  .aim-table th, .aim-table td { padding-inline: 0.3rem; white-space: normal; overflow-wrap: anywhere; font-size: 0.8rem; }
  .aim-table th:first-child { min-width: 5.5rem; overflow-wrap: normal; }
}
""".replace(
    "PICTURES",
    "".join(
        _PICTURE.replace("NAME", name) for name in ("picture", "explored", "inside-picture", "map")
    ),
)
