"""Changes that are made for export only, one file each; the file's name is the rewrite's name, `--keep NAME` leaves it out."""
