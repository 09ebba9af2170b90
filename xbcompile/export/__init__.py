"""What a program is, in files that other tools read: cells, places of weights, schedule, drives, traces, ONNX.

Start at `folder.export_program`; `places` says where each weight sits, and what each cell holds.
"""
