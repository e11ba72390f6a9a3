"""Where calibration data comes from, each way in its file; all give runs by input names, checked against the model."""
