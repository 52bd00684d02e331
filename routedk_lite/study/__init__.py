"""Runs and records: what a study consists of, how each run is made, and what is kept of it.

>>> import tempfile, routedk_lite as rdk
>>> from routedk_lite.study.pipeline import Pipeline
>>> work = tempfile.mkdtemp()
>>> study = Pipeline("toy", results=work, work=work, progress=False)
>>> _ = study.run(only=["floor-pairs"])
>>> [record.run for record in rdk.load_all(work)]
['floor-pairs']
"""
