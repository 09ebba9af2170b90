"""quiet-columns: `quiet_columns` is the pass, `measure` asks the chip for its errors, `assignment` chooses columns."""
