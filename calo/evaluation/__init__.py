"""How close generated showers are to reference ones: features, histograms, classifiers, distances, a report."""
