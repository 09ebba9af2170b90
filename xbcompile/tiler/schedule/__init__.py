"""Scheduling: on which array each weight image is written, and when its tiles are read.

`make_schedule.py` (read it first) is the way in. `workload.py` says what has to be read: visits of images, in ticks. A
`VisitPlan` assigns visits to arrays in an order (`list_scheduling.py`, `read_order.py`, `solver.py`), `timetable.py`
times it, `candidates.py` compares plans, `bounds.py` says what no schedule can undercut. `residency.py`: which images
stay loaded (Belady's rule); `copies.py`: images on several arrays; `overlap.py`: pipelined batches; `retime.py`: writes
of fewer rows.
"""
