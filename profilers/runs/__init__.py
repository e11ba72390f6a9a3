"""What a command found out, as plain data: printed, written and compared from the same record."""
