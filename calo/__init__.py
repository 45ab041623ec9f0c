"""Calorimeter showers: geometries, files, a reference simulator, models on the layers of `nisampler.flows`, metrics.

Names are imported from their modules, which are named after what they do:

>>> from nisampler.calo.detector.geometries import geometry
>>> from nisampler.calo.models import build_model
>>> build_model("small", geometry("toy")).geometry.n_voxels
240

`simulator.simulate_file`, `fit.fit`, `store.load_model`, `generation.generate`, `evaluation.evaluate.evaluate` and
`timing.time_model` are what the commands of `nisampler calo` call; `files` reads and writes showers. `jets` holds jets,
which are learned in the same way.
"""
