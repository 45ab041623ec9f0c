"""Figures of event files and of several runs beside each other. May use all below."""
