"""Folders of ONNX files through plain onnxruntime and through xbcompile: `python -m tests.corpus FOLDER`.

`files` finds the models, `inputs` makes what they are fed, `judge` runs one of them in all ways, `table` says what came of it.
"""
