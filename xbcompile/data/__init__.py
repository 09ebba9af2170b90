"""Data for calibration and evaluation: named sets, files, folders of images, arrays, tables and loaders.

`datasets.py` (read it first) finds and checks them; `columns.py` says which arrays are labels; `csv_tables.py`,
`image_folders.py` and `batches.py` read what their names say, `synthetic.py` makes the sets that nobody published.
"""
