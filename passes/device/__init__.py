"""Device passes: what is fitted on one chip when it is commissioned, one file per pass.

`calibrate_offsets.py` is the simplest, read it first; `recalibrate.py` fits gains and shifts of outputs,
`avoid_defects.py` routes around stuck devices, `quiet_columns/` puts outputs that matter on good columns.
"""
