"""What screens and reports of all parts share: progress, console, plots, pages, histograms. Uses `base` alone."""
