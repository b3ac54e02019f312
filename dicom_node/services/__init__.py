"""DIMSE services: Storage and Verification as provider and user, Query/Retrieve as user (PS3.4)."""
