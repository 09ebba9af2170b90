"""The words of this package's output, for people who come from either side: networks or arrays."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A word.

    Attributes:
        word: as the output has it.
        meaning: in one or two sentences.
        also: further words of the output that it explains.
    """

    word: str
    meaning: str
    also: tuple[str, ...] = ()


GLOSSARY = (
    Term("%", "Per cent of the whole."),
    Term(
        "area bound",
        "No mapping has fewer weight images than weights / cells of an array, rounded up. `images 12 (bound 11)` says how "
        "far a mapping is from it.",
        ("bound",),
    ),
    Term("array", "One physical crossbar: rows by columns of cells. All columns are read at once.", ("arrays",)),
    Term(
        "assumed",
        "A number that no paper gives: `range` says between which values it might lie; `xbcompile sensitivity` tries both "
        "ends (`low`, `high`), and `swing` is the difference in accuracy, in points.",
        ("low", "high", "swing", "range"),
    ),
    Term(
        "at least",
        "A lower bound that is proven for these cuts and this order, or as the line says; `gap` is how far above it a "
        "mapping is.",
        ("gap",),
    ),
    Term(
        "basis",
        "How a number of `reproduce` came about: predicted from published numbers alone, calibrated so that it comes out, or "
        "resting on assumed ones.",
    ),
    Term("batch", "How many inferences are served between two writes of the same weight image (`--batch`)."),
    Term(
        "best N",
        "The number of states with the lowest error.",
        ("best N, mean", "best N up to", "fewest states within", "median"),
    ),
    Term(
        "calibration",
        "Inputs on which ranges of input codes and corrections are fitted, without labels (`--calibration`).",
    ),
    Term("cell", "Where one weight sits: a device, a pair of devices, or two paths, as the target has it."),
    Term(
        "chip",
        "One sample of a target with its own device errors; which one, the seed says. `--repeat 10` runs on ten.",
        ("chips",),
    ),
    Term(
        "clipped",
        "An input lay outside of the range that it is coded for, and the nearest value was taken.",
        ("inputs clipped",),
    ),
    Term("commissioning", "Measuring one chip, and fitting what corrects its outputs, before it is used."),
    Term("converter", "What turns a column's analogue sum into a code. Sums beyond its range saturate."),
    Term("copy", "A weight image may be written into several arrays, which share the input vectors."),
    Term("cuts", "How matrices are divided into tiles: greedy, balanced or free."),
    Term(
        "decided",
        "What an option, or a number of the target, was in each of two programs; `figure` is what came of it, with the "
        "second program's over the first one's.",
        ("figure", "second / first", "what differs"),
    ),
    Term(
        "device (option)",
        "What executes a program: the physics of a target, an emulator of measured errors, or `ideal`.",
        ("device", "devices"),
    ),
    Term("digital", "What does not run on arrays: onnxruntime runs it as the model has it."),
    Term("dot product", "One used column of one read.", ("dot products", "dot")),
    Term("drive", "What a row is given in one read: a voltage, a current or a bit, in -1 to 1 or 0 to 1."),
    Term("drop", "Software accuracy less accuracy on the array, in points."),
    Term(
        "energy per inference",
        "Energy of the arrays' reads and writes for one sample, in joules (J); digital work is not in it.",
        ("energy",),
    ),
    Term("goal", "The range that a number of `reproduce` should be in; `met` says whether it is.", ("met",)),
    Term("host graph", "The ideal meaning of a program as an ONNX model: what arrays without errors would compute."),
    Term("inference", "One sample through the network."),
    Term(
        "input code",
        "How real inputs become drives: analogue, thermometer (T equal slices) or bit-serial (bits of a number).",
        ("input",),
    ),
    Term("layer", "A matrix of the network that sits on arrays, under the name of its node in the model."),
    Term("level", "A value that a cell can hold, normalised; its index is what a program stores.", ("code", "levels")),
    Term("LSB", "Least significant bit: the distance of two codes of a converter, in units of the dot product."),
    Term(
        "MACs",
        "Multiply-accumulates: multiplications of an input with a weight, each added to a sum. On arrays, or digital.",
        ("on arrays", "digital MACs"),
    ),
    Term("makespan", "Time from the first to the last step of a batch.", ("time per batch",)),
    Term("matrix", "Inputs x outputs of a layer; before it, how many independent ones (`32x 9x1`)."),
    Term(
        "mean error",
        "What readings differ by from exact sums, in LSB or dot products: on average with its sign (an offset), and |error| "
        "without it.",
        ("mean |error|",),
    ),
    Term(
        "mean square / variance",
        "Error power of an output over the power of what varies in it; its root is error / std. Uncorrected: before gains "
        "and offsets of the chip.",
        ("error / std", "uncorrected mean square / variance"),
    ),
    Term(
        "network",
        "What the model is, as layers and digital parts; several `networks` are trained alike from other seeds.",
        ("networks",),
    ),
    Term("node", "One operation of an ONNX model; `operator` says which.", ("operator",)),
    Term("not finite", "Numbers that are NaN or infinite."),
    Term("offset", "What is added to a column's output, digitally: of a weight code, or measured on a chip."),
    Term(
        "output error from",
        "Where the error of a layer's output comes from, by switching each source off; `share` of all, without the cross "
        "terms.",
        (
            "the whole program",
            "accuracy without",
            "accuracy alone",
            "output error without",
            "output error alone",
            "cross terms",
            "whole",
        ),
    ),
    Term(
        "packing",
        "How tiles are put side by side in weight images: dense, in-order, or none. `tried` lists combinations with cuts; "
        "one is chosen.",
        ("tried",),
    ),
    Term(
        "pass",
        "A step of compiling, or a correction fitted on a chip; several make a pipeline. Its options stand in braces: "
        "`quantize{levels=4}`.",
        ("options (default)", "default passes"),
    ),
    Term("period", "Time from the start of a batch to the start of the next one."),
    Term("points", "Difference of two accuracies in per cent: from 97 % to 95 % is 2 points."),
    Term(
        "published",
        "What the paper says; `here` is what this run gives, `by` the paper's own procedure or ours.",
        ("here", "by", "experiment", "measurement", "title", "note", "worst"),
    ),
    Term(
        "quantity",
        "One number of a target: its value with unit, what it is, and its source.",
        ("value", "source", "what"),
    ),
    Term("range used", "The part of the converter's range that readings span."),
    Term("read", "One activation of an array for one slice of one input vector.", ("reads",)),
    Term("read energy", "Energy of the reads of one inference, in joules (J)."),
    Term("read time", "Time of the reads of one inference, one after another, in seconds (s)."),
    Term("readings", "Numbers that converters gave, one per column and read.", ("readings observed",)),
    Term(
        "recycled",
        "An array takes several weight images in turn within each batch, because there are fewer arrays than images. The "
        "opposite is stationary.",
    ),
    Term(
        "saturation",
        "A sum lies beyond the converter's range and is cut off there.",
        ("saturated low", "saturated high"),
    ),
    Term(
        "scramble", "To permute an image's columns, so that systematic errors of columns do not line up with outputs."
    ),
    Term(
        "share",
        "Part of the time that arrays are read and written which a layer takes; in `diagnose`, part of the error.",
    ),
    Term("sigma_NL", "Standard deviation of the offsets that all cells' states share, in Ohm.", ("NL",)),
    Term("sigma_perp", "Standard deviation of the offsets of each cell by itself, in Ohm.", ("perp",)),
    Term(
        "slice",
        "One read's part of an input vector: a thermometer's level, a bit, or all of an analogue code.",
        ("slices",),
    ),
    Term("software accuracy", "Accuracy of the float model in onnxruntime, without arrays.", ("software",)),
    Term("states", "How many values a multistate cell has.", ("quantization alone",)),
    Term("stationary", "Every weight image stays in its array: written once, before the first batch."),
    Term("step", "One write or read of the schedule, from `start` to `end`.", ("start", "end")),
    Term(
        "target",
        "A description of an array: sizes, levels, converters, times, energies, and where each number is from.",
    ),
    Term("tile", "A piece of a matrix that fits into one array; it sits in a weight image.", ("tiles",)),
    Term(
        "unit",
        "SI: seconds (s), joules (J), ohms (Ohm), volts (V), amperes (A), hertz (Hz), farads (F), watts (W); f, p, n, µ, m, "
        "k, M, G are 1e-15 to 1e9. 1: a plain number. s²: summed squares of the weights of slices.",
        ("s", "J", "Ohm", "V", "A", "Hz", "F", "W", "s²"),
    ),
    Term(
        "update",
        "Writing one weight image into one array (weight update).",
        ("updates", "updates per batch", "weight update"),
    ),
    Term("use", "One time that a matrix is read for all input vectors: a layer, or one step of a recurrence."),
    Term("utilisation", "Weights / cells of the weight images that hold them."),
    Term("vectors", "Input vectors that a layer takes per inference: one, or one per position of a convolution."),
    Term(
        "weight image",
        "The content of a whole array: tiles packed side by side. An array holds one image at a time.",
        ("image", "images"),
    ),
    Term("±", "Sample standard deviation over chips, networks or seeds, as the line says."),
)


def found_terms(text: str) -> list[Term]:
    """Terms of a word, or where it has none of words that hold it, or else of meanings that do; all for an empty one.

    Args:
        text: any part of a word, in small or capital letters.
    """
    wanted = text.strip().lower()
    exactly = [term for term in GLOSSARY if wanted in map(str.lower, (term.word, *term.also))]
    by_word = [term for term in GLOSSARY if any(wanted in word.lower() for word in (term.word, *term.also))]
    return exactly or by_word or [term for term in GLOSSARY if wanted in term.meaning.lower()]


def shown_words(term: Term) -> str:
    """A term's word, and in brackets those that it explains too."""
    return f"{term.word} ({', '.join(term.also)})" if term.also else term.word


def glossary_page() -> str:
    """The text of docs/glossary.md."""
    lines = [f"- **{shown_words(term)}**: {term.meaning}" for term in GLOSSARY]
    head = "# Glossary\n\nThe words that tables and messages use; `xbcompile glossary WORD` shows them on the terminal.\n\n"
    return head + "\n".join(lines) + "\n"
