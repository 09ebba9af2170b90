"""What a shell offers where the user presses Tab: names of targets, passes, devices and example networks, and files by ending."""

from __future__ import annotations

import os
from collections.abc import Iterator


def targets(incomplete: str) -> list[str]:
    """Names of targets, and files of descriptions."""
    from xbcompile.targets import target_names

    return [*_starting(target_names(), incomplete), *_files(incomplete, ".toml")]


def devices(incomplete: str) -> list[str]:
    """Names of devices of the shipped targets."""
    from xbcompile.targets import load_target, target_names

    return _starting({name for each in target_names() for name in load_target(each).device_names}, incomplete)


def pipelines(incomplete: str) -> list[str]:
    """Pipelines with one more pass: what stands before the last comma stays."""
    from xbcompile.passes import pass_names

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _starting(pass_names(), last)]


def models(incomplete: str) -> list[str]:
    """Names of example networks, and ONNX files."""
    from xbcompile.frontend.examples import example_names

    return [*_starting(example_names(), incomplete), *_files(incomplete, ".onnx")]


def programs(incomplete: str) -> list[str]:
    """Program files."""
    return list(_files(incomplete, ".xbar"))


def corrections(incomplete: str) -> list[str]:
    """Files of corrections."""
    return list(_files(incomplete, ".fit"))


def words(incomplete: str) -> list[str]:
    """Words of the glossary."""
    from xbcompile.report.glossary import GLOSSARY

    return _starting((term.word for term in GLOSSARY), incomplete)


def _starting(names: object, incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))  # type: ignore[attr-defined]


def _files(incomplete: str, ending: str) -> Iterator[str]:
    """Files with this ending and folders, as far as a path is written; none where the folder cannot be read."""
    folder, start = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except (OSError, ValueError):
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            if entry.is_dir():
                yield os.path.join(folder, entry.name, "")
            elif entry.name.endswith(ending):
                yield os.path.join(folder, entry.name)
