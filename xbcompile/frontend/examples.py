"""The example networks, which come with the package: each is a model that is named without a folder and an ending."""

from __future__ import annotations

import os
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "example_networks"


def example_names() -> list[str]:
    """Their names, in order."""
    return sorted(path.stem for path in EXAMPLES.glob("*.onnx"))


def found_model(source: str | os.PathLike[str]) -> Path:
    """The file that a user means: an example network's, where its bare name is given and there is no file of that name."""
    path = Path(source)
    if path.name == str(path) and not path.suffix and not os.path.lexists(path):
        example = EXAMPLES / f"{path.name}.onnx"
        return example if path.name in example_names() else path
    return path


def is_example(source: str | os.PathLike[str]) -> bool:
    """Whether a name means an example network."""
    return found_model(source) != Path(source)
