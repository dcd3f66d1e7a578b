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
