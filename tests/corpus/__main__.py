"""Any folder of ONNX files through xbcompile, compared with plain onnxruntime: `python -m tests.corpus FOLDER`.

Each file gets inputs of its own (those beside it, in an .npz of its name or in `test_data_set_0`, else random ones), is
compiled for the exact target and run, in one call and sample by sample, is explained, and is compiled without calibration
for targets with errors, where one sample runs. What is to be mended is listed, then the files are counted by folder and
stage.
The status is 1 when anything is wrong, or ends in anything but a clear error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.corpus.files import model_files
from tests.corpus.judge import FINDINGS, KINDS, Task, judge
from tests.corpus.table import lines_of, table, to_json


def main(arguments: list[str] | None = None) -> int:
    """The command line; its status."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("place", type=Path, help="a folder, with all below it, an .onnx file, or an archive")
    parser.add_argument("--targets", nargs="*", default=["mram64", "sot"], help="targets with errors (mram64 sot)")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time")
    parser.add_argument("--limit-seconds", type=float, default=120.0, help="time of each file (120)")
    parser.add_argument("--match", default="", help="regular expression that names must match")
    parser.add_argument("--all", action="store_true", help="list all other files too")
    parser.add_argument("--json", type=Path, help="write all that was found to this file")
    chosen = parser.parse_args(arguments)
    verdicts = []
    with TemporaryDirectory() as scratch:
        files = model_files(chosen.place, Path(scratch))
        tasks = [Task(name, str(path), tuple(chosen.targets)) for name, path in files.items()]
        tasks = [task for task in tasks if re.search(chosen.match, task.name)]
        if not tasks:
            parser.error(f"no .onnx file at {chosen.place}")
        for verdict in judge(tasks, chosen.jobs, chosen.limit_seconds):
            verdicts.append(verdict)
            for line in lines_of(verdict, chosen.all):
                print(line, flush=True)
    print("\n".join(["", table(verdicts), "", *(f"{kind}: {words}" for kind, words in KINDS.items())]))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(to_json(verdicts), indent=1))
    return int(any(stage.kind in FINDINGS for verdict in verdicts for stage in verdict.stages))


if __name__ == "__main__":
    sys.exit(main())
