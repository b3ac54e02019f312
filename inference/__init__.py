"""The grounded biomedical model: architecture, checkpoints, preprocessing, tasks, the engine.

This room knows nothing of DICOM, queues or SQL. ``inference.findings`` is the contract with the
DICOM side and imports numpy alone.
"""
