"""Where models run and how time is taken there: one file for each kind of device, named as torch names it."""
