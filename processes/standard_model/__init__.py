"""Any tree-level process of the Standard Model at a proton collider, from its string; uses amplitudes and hadron."""
