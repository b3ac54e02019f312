"""The node's memory: studies, jobs, results, in SQLite or PostgreSQL.

The database owns every job. This room knows nothing of DICOM services, queues or the model;
SQL is written here and nowhere else.
"""
