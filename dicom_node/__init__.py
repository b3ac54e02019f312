"""Everything of the node that speaks DICOM.

``objects`` turns series into pixels and findings into SEG and SR, ``services`` is the network side,
``archive`` keeps what arrives and ``peers`` says who may call. No SQL, no queue and no torch in
here.
"""
