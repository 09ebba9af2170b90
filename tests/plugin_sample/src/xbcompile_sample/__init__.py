"""What a package can bring to xbcompile; `pyproject.toml` says under which names."""
