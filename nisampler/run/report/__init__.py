"""What a run found, told: lines for a person, figures, a page."""
