"""The rows of the tables: who does which work, and how often."""

from __future__ import annotations

from dataclasses import dataclass

NOISY = ("xbcompile", "lightning", "crosssim", "onnxruntime")

SIDE_NAMES = {
    "xbcompile": "xbcompile",
    "lightning": "aihwkit-lightning",
    "crosssim": "CrossSim",
    "onnxruntime": "onnxruntime, float",
    "lines": "xbcompile",
    "badcrossbar": "badcrossbar",
    "sessions": "a session per chip",
    "repeat": "`run --repeat`",
}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        name: chooses it on the command line.
        title: for people.
        unit: of what is counted per second; "s" and "MiB": what counts is the time, or the memory, of one run.
        sides: who takes part, each with a name of work; ours first.
        threads: settings that are timed.
        errors: which errors are on at which side.
        cold: whether nothing is run before it is timed: the first run is what counts, or it is long.
    """

    name: str
    title: str
    unit: str
    sides: tuple[tuple[str, str], ...]
    threads: tuple[int, ...] = (1, 2)
    errors: str = ""
    cold: bool = False

    @property
    def once(self) -> bool:
        """Whether there is nothing to repeat: memory is the same every time."""
        return self.unit == "MiB"


def simulation(name: str, title: str, unit: str, errors: str, sides: tuple[str, ...] = NOISY) -> Row:
    """A row of simulators with the same piece of work."""
    return Row(name, title, unit, tuple((side, name) for side in sides), errors=errors)


def command(name: str, title: str, work: str) -> Row:
    """A row of a process from its start to its end."""
    return Row(name, title, "s", (("command", work),), (2,))


def memory(name: str, title: str) -> Row:
    """A row of the memory of one run."""
    return Row(name, title, "MiB", (("memory", name),), (2,), cold=True)


BINARY_ERRORS = (
    "xbcompile: cells, jitter, 4-bit converter; lightning: weights perturbed once, a normal per conversion, 16 codes; "
    "CrossSim: programming error, 4 bits, no noise; each in 8 binary reads"
)
NOISY_ERRORS = (
    "xbcompile: cells, a normal per conversion, 8 bits; lightning: weights perturbed once, a normal per conversion, 8 bits; "
    "CrossSim: programming error, 8 bits, no noise"
)
ROWS = (
    simulation("W1", "`mnist_bnn`, `mram64`, physics", "images/s", BINARY_ERRORS),
    simulation(
        "W1e",
        "the same, emulator",
        "images/s",
        "xbcompile: measured histograms of errors; lightning as in W1",
        ("xbcompile", "lightning"),
    ),
    simulation(
        "W2",
        "LeNet-5 ternary, `sot` as shipped",
        "images/s",
        "xbcompile: cells; lightning: weights perturbed once; CrossSim: programming error; no noise, no converter anywhere",
    ),
    simulation("W2n", "the same, 8 bits and noise", "images/s", NOISY_ERRORS),
    simulation("W3", "ResNet-18 at 32x32, 8 bits and noise", "images/s", NOISY_ERRORS),
    simulation("W4", "dense 4096x4096, batch 256, 8 bits and noise", "vectors/s", NOISY_ERRORS),
    simulation(
        "D1", "depthwise 3x3, 192 channels, 16x16, `sot`", "images/s", "xbcompile: cells", ("xbcompile", "onnxruntime")
    ),
    simulation(
        "D2",
        "the same, `mram64`",
        "images/s",
        "xbcompile: cells, jitter, 4-bit converter",
        ("xbcompile", "onnxruntime"),
    ),
    Row("W5-64", "line resistance, 64x64", "vectors/s", (("lines", "64"), ("badcrossbar", "64")), (1,)),
    Row("W5-256", "line resistance, 256x256", "vectors/s", (("lines", "256"), ("badcrossbar", "256")), (1,), cold=True),
    Row(
        "chips",
        "`mnist_bnn`, 100 chips x 1,000 images",
        "s",
        (("repeat", "chips"), ("sessions", "chips")),
        (2,),
        cold=True,
    ),
    Row("resnet50", "compiling ResNet-50 for `sot`", "s", (("compile", "resnet50"),), (2,), cold=True),
    command("python", "`python -c pass`", "python"),
    command("start-help", "`xbcompile --help`", "--help"),
    command("start-targets", "`xbcompile targets`", "targets"),
    command("start-passes", "`xbcompile passes`", "passes"),
    command("start-inspect", "`xbcompile inspect` of XOR", "inspect"),
    memory("M1", "W1, 60,000 images"),
    memory("M1e", "W1e, 60,000 images"),
    memory("M2", "W2, 10,000 images"),
    memory("M3", "W3, 16 images"),
    memory("M4", "W4, 1,024 vectors"),
    memory("C1", "3x3 convolution, 64 channels, 32x32, 500 images"),
    memory("C2", "depthwise 3x3, 192 channels, 16x16, 500 images"),
)
