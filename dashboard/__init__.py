"""The admin web pages: every job's status, and the finding beside the mask it speaks of.

FastAPI, Jinja2 and plain ES modules; no request leaves the host. The pages ask `db` in its own
words and change jobs only by the ways that the state machine knows.
"""
