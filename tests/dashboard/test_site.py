"""What the settings page and the API tell of the settings."""

from __future__ import annotations

import json

from dashboard.site import sections_of
from workflows.settings import NodeSettings

SECRET = "a-secret-of-this-test"


def test_no_secret_is_shown_at_any_depth() -> None:
    settings = NodeSettings.model_validate(
        {
            "dicomweb": {
                "users": [
                    {"name": "viewer", "allow": ["query"], "token": SECRET},
                    {"name": "other", "allow": ["query"], "user": "u", "password": SECRET},
                ]
            },
            "destinations": [
                {"name": "web", "url": "https://pacs.example/dicom-web", "token": SECRET},
                {
                    "name": "oauth",
                    "url": "https://pacs.example/dicom-web",
                    "oauth2": {
                        "token_url": "https://login.example/token",
                        "client_id": "node",
                        "client_secret": SECRET,
                    },
                },
            ],
        }
    )
    shown = json.dumps(sections_of(settings))
    assert SECRET not in shown
    assert "viewer" in shown and "other" in shown
    assert "{" not in shown
