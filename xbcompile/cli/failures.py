"""What is said of a command that cannot be done: one line on the error output, and with `--json` an object on the output."""

from __future__ import annotations

import json
import sys

from xbcompile.cli.streams import settle, tell


def tell_failure(kind: str, message: str, *lines: str) -> None:
    """Say why a command ends without a result.

    Args:
        kind: name of the class of the error, for machines.
        message: what is wrong, for people; for machines as it is.
        *lines: what stands on the error output instead of the message.
    """
    for line in lines or (f"xbcompile: error: {' '.join(message.split())}",):
        tell(line)
    if "--json" in sys.argv[1:]:
        try:
            print(json.dumps({"error": {"kind": kind, "message": message}}, indent=1))
        except OSError:
            settle(sys.stdout)
