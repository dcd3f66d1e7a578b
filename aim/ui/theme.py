"""How the page looks: its own colours, the system's fonts (nothing is fetched from anywhere), and a few rules of CSS."""

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
    primary_hue=_CORAL, secondary_hue=_TEAL, neutral_hue=_INK, radius_size="lg", font=_SYSTEM_FONTS, font_mono=_SYSTEM_MONO
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_shadow="0 1px 3px rgb(20 35 45 / 0.06)",
    block_label_text_weight="600",
    block_title_text_weight="600",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_500",
    button_primary_text_color="white",
    slider_color="*primary_500",
    slider_color_dark="*primary_500",
)

CSS = """
.gradio-container { width: 100%; max-width: 1088px !important; margin: 0 auto !important; }
.aim-head h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0; letter-spacing: -0.01em; }
.aim-head p { margin: 0.25rem 0 0; color: var(--body-text-color-subdued); max-width: 46rem; }

/* The picture: a code that is not drawn yet is a dot on paper, in its place on the 16x16 grid. */
#picture { --paper: #e9eef0; --dot: #b4c1c9; max-width: 560px; width: 100%; margin: 0 auto; aspect-ratio: 1; }
.dark #picture { --paper: #1b262e; --dot: #435561; }
#picture .image-container, #picture .image-frame, #picture .image-container > button { width: 100%; height: 100%; }
#picture .image-container, #picture .empty {
  background: radial-gradient(circle, var(--dot) 0 2px, transparent 2.6px) 0 0 / 6.25% 6.25% var(--paper);
}
#picture .empty { width: 100%; height: 100%; max-height: none; aspect-ratio: 1; }
#picture .empty .icon { display: none; }
#picture img { width: 100%; height: 100%; object-fit: contain; image-rendering: auto; }

#progress { max-width: 560px; width: 100%; margin: 0 auto; }
#progress .html-container { padding: 0; }
.aim-bar { height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; }
.aim-bar > div { height: 100%; border-radius: 4px; background: var(--primary-500); transition: width 0.12s linear; }
.aim-done .aim-bar > div { background: var(--secondary-500); }
.aim-failed .aim-bar > div { background: var(--error-icon-color); }
.aim-line { display: flex; justify-content: space-between; gap: 1rem; margin-top: 0.45rem; font-variant-numeric: tabular-nums; }
.aim-line .aim-rate { white-space: nowrap; color: var(--body-text-color-subdued); }
.aim-failed .aim-text { color: var(--error-text-color); }
.aim-narrow { max-width: 560px; width: 100%; margin: 0 auto !important; }
.aim-note, .aim-note p { font-size: 0.86rem; color: var(--body-text-color-subdued); margin: 0; }
.aim-about { max-width: 46rem; }

/* On a narrow screen the picture follows the first buttons; the settings come last. */
@media (max-width: 767px) {
  .aim-columns { flex-direction: column; flex-wrap: nowrap; gap: var(--layout-gap); }
  .aim-controls { display: contents !important; }
  .aim-controls > * { order: 3; width: 100%; }
  .aim-controls > .aim-first { order: 1; }
  .aim-result { order: 2; width: 100%; }
  #png, #gif { font-size: 0.85rem; white-space: nowrap; padding-inline: 0.5rem; }
}
"""
