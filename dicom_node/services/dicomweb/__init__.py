"""DICOMweb (PS3.18) over the node's archive: search, retrieve, store."""
