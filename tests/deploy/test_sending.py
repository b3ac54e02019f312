from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo_pacs import OwnPacs, free_port
from deploy.phantom_study import demo_phantom, write_phantom_study
from deploy.sending import AddressError, SendError, parse_address, send_folder


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("PACS@10.1.2.3:104", "10.1.2.3", 104), ("MY PACS@[::1]:11112", "::1", 11112)],
)
def test_an_address_names_ae_title_host_and_port(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert (address.ae_title, address.host, address.port) == (text.split("@")[0], host, port)


@pytest.mark.parametrize(
    "text", ["", "PACS", "PACS@host", "@host:104", "PACS@host:0", "PACS@host:70000", "A" * 17]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(AddressError, match="such as UNIBIOMED@"):
        parse_address(text)


def test_a_folder_is_sent_and_what_is_no_dicom_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    write_phantom_study(demo_phantom(), folder)
    (folder / "README.txt").write_text("not an image")
    said: list[str] = []
    with OwnPacs(tmp_path / "pacs") as pacs:
        sent = send_folder(folder, f"{pacs.ae_title}@127.0.0.1:{pacs.port}", "TEST", said.append)
    assert (sent.total, sent.stored) == (40, 40)
    assert said == ["Passed over 1 files that are no DICOM instances."]


def test_nothing_to_send_and_nobody_there_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(SendError, match="There is no file in"):
        send_folder(tmp_path, "A@127.0.0.1:104", "TEST", print)
    (tmp_path / "note.txt").write_text("text")
    with pytest.raises(SendError, match="no DICOM instance"):
        send_folder(tmp_path, "A@127.0.0.1:104", "TEST", print)
    write_phantom_study(demo_phantom(), tmp_path)
    with pytest.raises(SendError, match="no connection"):
        send_folder(tmp_path, f"A@127.0.0.1:{free_port()}", "TEST", print)
