"""Colours of figures."""

BLUE, ORANGE, GREEN, PURPLE = "#1f5fa6", "#d1495b", "#2a8c6e", "#7a4fa3"
INK, GREY, PALE = "#22303c", "#8795a1", "#e6ebef"
