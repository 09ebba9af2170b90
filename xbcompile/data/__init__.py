"""Data for calibration and evaluation, given by names such as `mnist:train:1000` or as .npz files.

`datasets.py` (read it first) finds, checks and slices them; `synthetic.py` makes those that nobody published.
"""
