"""DICOM objects: from series to pixels and geometry, from findings to SEG and SR."""
