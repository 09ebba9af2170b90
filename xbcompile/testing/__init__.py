"""Conformance kits: what every pass, every device and every target promises, as plain functions for any test runner.

`passes` checks a network pass or a device pass, `targets` a target and each of its devices. A check raises AssertionError with a
text that says what was promised and what was found. What is shipped here is tested by the same kits.
"""

from __future__ import annotations

from xbcompile.testing.passes import check_device_pass, check_pass
from xbcompile.testing.targets import check_device, check_target

__all__ = ["check_device", "check_device_pass", "check_pass", "check_target"]
