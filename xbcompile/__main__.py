"""`python -m xbcompile`: the command line of this interpreter's environment."""

from xbcompile.cli import main

main()
