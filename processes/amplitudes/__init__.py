"""Leading-order matrix elements in torch: Drell-Yan, vector boson and jet, top pairs, QCD two-to-two."""
