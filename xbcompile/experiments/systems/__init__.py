"""What `xbcompile reproduce` shows, system by system and in the order of its tables: one file a paper.

Each file lists EXPERIMENTS (networks, compiled and run), MEASUREMENTS (other numbers) and FIGURES (what can be drawn).
"""

from __future__ import annotations

from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment
from xbcompile.experiments.systems import m2tj4, memristor20, mram64, multicell, sot

_SYSTEMS = (mram64, m2tj4, sot, multicell, memristor20)

EXPERIMENTS: tuple[Experiment, ...] = tuple(each for system in _SYSTEMS for each in system.EXPERIMENTS)
MEASUREMENTS: tuple[Measurement, ...] = tuple(each for system in _SYSTEMS for each in system.MEASUREMENTS)
FIGURES: tuple[PaperFigure, ...] = tuple(each for system in _SYSTEMS for each in system.FIGURES)
