"""The words of this package's output, for people who come from either side: networks or arrays."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A word.

    Attributes:
        word: as the output has it.
        meaning: in one or two sentences.
    """

    word: str
    meaning: str


GLOSSARY = (
    Term(
        "area bound",
        "No mapping has fewer weight images than weights / cells of an array, rounded up. `images 12 (bound 11)` says how far a "
        "mapping is from it.",
    ),
    Term("array", "One physical crossbar: rows by columns of cells. All columns are read at once."),
    Term("batch", "How many inferences are served between two writes of the same weight image (`--batch`)."),
    Term(
        "calibration",
        "Inputs on which ranges of input codes and corrections are fitted, without labels (`--calibration`).",
    ),
    Term("cell", "Where one weight sits: a device, a pair of devices, or two paths, as the target has it."),
    Term(
        "chip",
        "One sample of a target with its own device errors; which one, the seed says. `--repeat 10` runs on ten.",
    ),
    Term("commissioning", "Measuring one chip, and fitting what corrects its outputs, before it is used."),
    Term("converter", "What turns a column's analogue sum into a code. Sums beyond its range saturate."),
    Term("copy", "A weight image may be written into several arrays, which share the input vectors."),
    Term("cuts", "How matrices are divided into tiles: greedy, balanced or free."),
    Term(
        "device (option)",
        "What executes a program: the physics of a target, an emulator of measured errors, or `ideal`.",
    ),
    Term("digital", "What does not run on arrays: onnxruntime runs it as the model has it."),
    Term("dot product", "One used column of one read."),
    Term("drive", "What a row is given in one read: a voltage, a current or a bit, in -1 to 1 or 0 to 1."),
    Term("host graph", "The ideal meaning of a program as an ONNX model: what arrays without errors would compute."),
    Term("inference", "One sample through the network."),
    Term(
        "input code",
        "How real inputs become drives: analogue, thermometer (T equal slices) or bit-serial (bits of a number).",
    ),
    Term("level", "A value that a cell can hold, normalised; its index is what a program stores."),
    Term("LSB", "Least significant bit: the distance of two codes of a converter, in units of the dot product."),
    Term("makespan", "Time from the first to the last step of a batch."),
    Term("offset", "What is added to a column's output, digitally: of a weight code, or measured on a chip."),
    Term("period", "Time from the start of a batch to the start of the next one."),
    Term("read", "One activation of an array for one slice of one input vector."),
    Term(
        "recycled",
        "An array takes several weight images in turn within each batch, because there are fewer arrays than images. "
        "The opposite is stationary.",
    ),
    Term("saturation", "A sum lies beyond the converter's range and is cut off there."),
    Term(
        "scramble", "To permute an image's columns, so that systematic errors of columns do not line up with outputs."
    ),
    Term("slice", "One read's part of an input vector: a thermometer's level, a bit, or all of an analogue code."),
    Term("software accuracy", "Accuracy of the float model in onnxruntime, without arrays."),
    Term("stationary", "Every weight image stays in its array: written once, before the first batch."),
    Term(
        "target",
        "A description of an array: sizes, levels, converters, times, energies, and where each number is from.",
    ),
    Term("tile", "A piece of a matrix that fits into one array; it sits in a weight image."),
    Term("update", "Writing one weight image into one array (weight update)."),
    Term("use", "One time that a matrix is read for all input vectors: a layer, or one step of a recurrence."),
    Term("utilisation", "Weights / cells of the weight images that hold them."),
    Term(
        "weight image", "The content of a whole array: tiles packed side by side. An array holds one image at a time."
    ),
)


def found_terms(text: str) -> list[Term]:
    """Terms whose word holds a text, or where none does, whose meaning does; all for an empty one.

    Args:
        text: any part of a word, in small or capital letters.
    """
    wanted = text.strip().lower()
    by_word = [term for term in GLOSSARY if wanted in term.word.lower()]
    return by_word or [term for term in GLOSSARY if wanted in term.meaning.lower()]


def glossary_page() -> str:
    """The text of docs/glossary.md."""
    lines = [f"- **{term.word}**: {term.meaning}" for term in GLOSSARY]
    head = "# Glossary\n\nThe words that tables and messages use; `xbcompile glossary WORD` shows them on the terminal.\n\n"
    return head + "\n".join(lines) + "\n"
