"""Training on the simulated device, by pulses that switch with a probability: Liu et al. (SOT-MRAM), Fig. 3.

Start at `training.py` (a training), `rules.py` (what a proposed update does to a device), `network.py` (the network).
"""
