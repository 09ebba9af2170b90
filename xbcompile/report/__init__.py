"""What users see of a program and a run: plain data for --json, tables for the terminal."""
