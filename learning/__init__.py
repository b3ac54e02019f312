"""Data sets, training, calibration and evaluation of the shipped models."""
