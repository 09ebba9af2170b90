"""The command line: `xbcompile compile | inspect | run | verify | targets | passes | characterize`."""

from __future__ import annotations

import sys

from xbcompile.errors import XbcompileError


def main() -> None:
    """Run the command line; a user's error is one line on standard error and exit status 1."""
    from xbcompile.cli.app import app

    try:
        app()
    except XbcompileError as error:
        text = " ".join(str(error).split())
        print(f"xbcompile: error: {text}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(1)
