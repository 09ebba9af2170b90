"""`python -m tests.fuzz NAME --minutes M` attempts a boundary for so long; findings go into build/fuzz."""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import time
from pathlib import Path

from tests.fuzz.harness import BOUNDARIES, Tally, attempt, attempted, blocks_for

FOLDER = Path("build/fuzz")


def main() -> int:
    """The command line; exit status 1 on a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"boundaries, of {', '.join(BOUNDARIES)}; none: all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each boundary")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the first block of examples")
    parser.add_argument("--again", type=Path, metavar="FILE", help="attempt one finding again, in this process")
    options = parser.parse_args()
    for name in options.names:
        if name not in BOUNDARIES:
            parser.error(f"no boundary {name!r}; there are {', '.join(BOUNDARIES)}")
    if options.again:
        tally = attempt(options.again.stem.split("-")[0], options.again.read_bytes())
        print("\n".join(finding.what for finding in tally.findings) or "no finding")
        return bool(tally.findings)
    findings = 0
    for name in options.names or BOUNDARIES:
        findings += _fuzz(name, options.minutes, options.workers, options.seed)
    return bool(findings)


def _fuzz(name: str, minutes: float, workers: int, seed: int) -> int:
    """Attempt a boundary; returns the number of different findings."""
    start, before, total, kinds = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), Tally(), set()
    for tally in attempted(blocks_for(name, minutes, seed), workers):
        total.add(tally)
        for finding in tally.findings:
            if finding.what in kinds:
                continue
            kinds.add(finding.what)
            FOLDER.mkdir(parents=True, exist_ok=True)
            path = FOLDER / f"{name}-{hashlib.sha256(finding.example).hexdigest()[:12]}.pickle"
            path.write_bytes(finding.example)
            print(f"{path}: {finding.what}", flush=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{name}: {total.results + total.refused:,} examples in {time.monotonic() - start:.0f} s, {busy:.0f} s of a processor, "
        f"{total.results:,} with a result, {total.refused:,} refused; {len(kinds)} kinds of findings; "
        f"largest process {after.ru_maxrss / 2**10:,.0f} MiB"
    )
    return len(kinds)


if __name__ == "__main__":
    sys.exit(main())
